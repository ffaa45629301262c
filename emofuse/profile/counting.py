"""What models are, whatever the machine: parameters, bytes, floating point operations.

FLOPs are counted on a real forward pass by torch's `FlopCounterMode`: matrix products and convolutions, where nearly
all of the work is, and a multiplication with its addition as **two**. Many papers, and torchvision's own tables, count
such a pair as one and call that FLOPs as well: 4.09 "GFLOPs" of ResNet-50 are 4.09 GMAC and 8.17 GFLOPs here.

What is not torch's (MediaPipe's face mesh, NumPy's LBP histograms) is not counted: None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from emofuse.profile.figures import MeasuredCost
from emofuse.specs import FaceSpec
from emofuse.streams.base import Sample
from emofuse.streams.faces import model_files

if TYPE_CHECKING:
    from emofuse.streams.base import Stream

_SQUARE_PX = 640
"""Side of the blank square that networks are counted on: each brings it to its own input size. `objects` takes less for
other shapes, whose padding it leaves out."""


def count_flops(forward: Callable[[], object]) -> int:
    """Floating point operations of a forward pass that torch's counter knows.

    Attention is computed step by step meanwhile: the counter knows the matrix products inside, but not every fused
    kernel that does the same in one (a ViT-B/16 would lose a third of its operations).
    """
    with _without_fused_attention(), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


def module_cost(modules: Sequence[nn.Module], flops: int | None) -> MeasuredCost:
    """Parameters of some modules, and the bytes of these and of the buffers that are saved with them."""
    parameters = sum(tensor.numel() for module in modules for tensor in module.parameters())
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    return MeasuredCost(parameters, sum(tensor.numel() * tensor.element_size() for tensor in tensors), flops)


def stream_costs(streams: Mapping[str, Stream], face: FaceSpec) -> dict[str, MeasuredCost]:
    """Stream -> its cost, and that of the face detector if one of the streams looks at faces.

    A stream that runs no torch operation that can be counted is not counted. Parameters are those of its torch modules,
    so that LBP has none.
    """
    costs = {name: _stream_cost(stream) for name, stream in streams.items()}
    if any(stream.needs_face for stream in streams.values()):
        model_bytes = sum(path.stat().st_size for path in model_files(face))
        costs[face_detector_name(face)] = MeasuredCost(None, model_bytes, None)
    return costs


def face_detector_name(face: FaceSpec) -> str:
    """What tables call it."""
    return f"face detector ({face.detector})"


def _stream_cost(stream: Stream) -> MeasuredCost:
    modules = [value for value in vars(stream).values() if isinstance(value, nn.Module)]
    square = Sample(np.zeros((_SQUARE_PX, _SQUARE_PX, 3), np.uint8))
    return module_cost(modules, count_flops(lambda: stream.extract([square])) or None)


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
