"""The costs of models that are the same on every machine: parameters, bytes and floating point operations.

FLOPs are counted on a real forward pass by torch's `FlopCounterMode`: matrix products and convolutions, where nearly
all of the work is. A multiplication with its addition counts as **two**. Many papers, and the tables of torchvision,
count such a pair as one and call that FLOPs as well: the 4.09 "GFLOPs" of ResNet-50 are 4.09 GMAC and 8.17 GFLOPs here.

Work outside of torch (MediaPipe's face mesh, NumPy's LBP histograms) is not counted: its count is None, never 0.
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
from emofuse.specs.streams import looks_at_faces
from emofuse.streams.base import NEEDS_FACE, Clip, Sample, Sound, needs_of
from emofuse.streams.faces import model_files

if TYPE_CHECKING:
    from emofuse.streams.base import Stream

_SQUARE_PX = 640
"""Side of the blank square that networks are counted on; each network brings it to its input size. `objects` needs
fewer operations for other shapes, because it leaves out their padding."""

_FRAMES = 16
_SOUND_HZ = 16_000
_SOUND_SAMPLES = 3 * _SOUND_HZ
"""The blank sound of three seconds that streams of sound are counted on, about the length of an utterance."""


def count_flops(forward: Callable[[], object]) -> int:
    """Count the floating point operations of a forward pass that torch's counter knows.

    Fused kernels are off meanwhile. The counter knows the matrix products inside attention and recurrent layers, but
    not every kernel that computes them in one step: a ViT-B/16 would lose a third of its operations, an LSTM all.
    """
    with _without_fused_kernels(), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


def module_cost(modules: Sequence[nn.Module], flops: int | None) -> MeasuredCost:
    """Return the parameters of some modules, and the bytes of parameters and saved buffers."""
    parameters = sum(tensor.numel() for module in modules for tensor in module.parameters())
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    return MeasuredCost(parameters, sum(tensor.numel() * tensor.element_size() for tensor in tensors), flops)


def stream_costs(streams: Mapping[str, Stream], face: FaceSpec, frames: int = 1) -> dict[str, MeasuredCost]:
    """Return the cost of each stream, and that of the face detector if a stream looks at faces.

    Parameters are those of torch modules, so that LBP has none. A stream without a countable operation has no count.
    `frames` is the number of frames of a clip, which streams of pictures see one by one.
    """
    costs = {name: _stream_cost(stream, frames) for name, stream in streams.items()}
    needs: frozenset[str] = frozenset().union(*map(needs_of, streams.values()))
    if looks_at_faces(needs):
        model_bytes = sum(path.stat().st_size for path in model_files(face, needs))
        costs[face_detector_name(face)] = MeasuredCost(None, model_bytes, None)
    return costs


def face_detector_name(face: FaceSpec) -> str:
    """Return the name of the face detector in tables."""
    return f"face detector ({face.detector})"


def _stream_cost(stream: Stream, frames: int) -> MeasuredCost:
    square = np.zeros((_SQUARE_PX, _SQUARE_PX, 3), np.uint8)
    needs = needs_of(stream)
    sound = Sound(np.zeros(_SOUND_SAMPLES, np.float32), _SOUND_HZ) if "audio" in needs else None
    clip = Clip((square,) * _FRAMES, np.arange(_FRAMES, dtype=np.float64)) if "frames" in needs else None
    blank = Sample(square, sound=sound, clip=clip, crop=square if "crop" in needs else None)
    pictures = frames if needs & NEEDS_FACE else 1
    return module_cost(_modules_of(stream), count_flops(lambda: stream.extract([blank])) * pictures or None)


def _modules_of(stream: Stream) -> list[nn.Module]:
    """Return the torch modules that a stream holds, or that it shares with others and gives as its `network`."""
    held = [*vars(stream).values(), getattr(stream, "network", None)]
    return list({id(module): module for module in held if isinstance(module, nn.Module)}.values())


@contextmanager
def _without_fused_kernels() -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    (mkldnn, *_) = torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]  # torch's own
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.mkldnn.set_flags(mkldnn)  # type: ignore[no-untyped-call]
