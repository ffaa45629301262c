"""Networks of pictures on their devices, which run once on a batch for all streams that store outputs of them.

A network whose compiled form is kept on this machine is not made, and PyTorch is not imported for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.specs.weights import Precision
from emofuse.streams.base import SampleBatch
from emofuse.streams.networks.kept import converting, keep, network_key, read_kept
from emofuse.streams.networks.running import CompiledNetwork, open_kept_network
from emofuse.streams.networks.squares import Square, faces_of
from emofuse.streams.runtimes import TORCH, openvino_record, present_runtimes

if TYPE_CHECKING:
    import torch

    from emofuse.streams.networks.outputs import Output, PictureNetwork
    from emofuse.streams.networks.presets import PicturePreset

_CPU_BATCH = 4  # the fastest on one core: 16 falls out of its cache (benchmarks/steps.py)
_GPU_BATCH = 64


class SharedBackbone:
    """A network on its device, which runs once on a batch for all streams that store outputs of it.

    float32 runs without TF32 on every device. In bfloat16 the weights and all values between layers are bfloat16, and
    sums within a layer are float32. On a CPU the network may be compiled (see `emofuse.streams.runtimes`); in bfloat16
    it then is as near to float32 as PyTorch's, but not the same, and the CPU must have instructions for it. It then
    takes its pictures one by one, which is as fast as several at once and gives the same bytes for every block size.

    Args:
        make: the function that makes the network.
        device: the device of the network, as torch names it.
        precision: the precision of its values.
        name: its name in messages.
        identity: what decides the values that it computes, as JSON holds it; None keeps no compiled form of it.

    Attributes:
        runtime: what computes it: `torch`, or `openvino` with its version.
    """

    def __init__(
        self,
        make: Callable[[], PictureNetwork],
        device: str,
        precision: Precision = "float32",
        name: str = "",
        *,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self._make = make
        self._device_name = device
        self._precision = precision
        self._asked: dict[Hashable, set[Output]] = {}  # what the network sees -> the outputs that streams store
        self._shapes: dict[Output, tuple[int, ...]] = {}
        self._square: Square | None = None
        self._compiled: dict[frozenset[Output], CompiledNetwork] = {}
        self.runtime = TORCH
        runtimes = present_runtimes()
        self._threads = runtimes.threads
        self._identity = identity if runtimes.compiles else None
        self._recall()
        if self._square is None:
            _ = self.network  # so that what is wrong with the weights is said now
        runtimes.register(name or "of pictures", self._compile)

    @cached_property
    def _made(self) -> PictureNetwork:
        return self._make()

    @cached_property
    def network(self) -> Any:
        """The network without its classifier, on its device."""
        from emofuse.streams.networks.classification import to_device

        return to_device(self._made.module, self._device_name).to(self._dtype)

    @property
    def preset(self) -> PicturePreset:
        """Its resize, crop and normalisation."""
        return self._made.preset

    @property
    def device(self) -> torch.device:
        """Its device."""
        import torch

        return torch.device(self._device_name)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the pictures that it sees."""
        return self._made.preset.size if self._square is None else self._square.size

    def ask(self, output: Output, seen: Hashable) -> tuple[int, ...]:
        """Note that a stream stores an output of the pictures that `seen` stands for, and return the shape of its rows.

        Raises:
            StreamError: the network has no such output.
        """
        if output not in self._shapes:
            _ = self.network
            self._shapes[output] = self._made.shape(output)
        self._asked.setdefault(seen, set()).add(output)
        return self._shapes[output]

    def run_pictures(self, batch: SampleBatch, seen: Hashable) -> Mapping[Output, npt.NDArray[np.float32]]:
        """Return every output that streams asked for, of the n >= 1 pictures of a batch."""
        if self._square is not None and self.runtime != TORCH:
            square = self._square
            return batch.once((self, seen), lambda: self._run_compiled(square.cut_all(batch), self._asked[seen]))
        return self.run(batch, seen, lambda: self.preset.cut_all(batch, self.device))

    def run_faces(self, batch: SampleBatch, seen: Hashable) -> Mapping[Output, npt.NDArray[np.float32]]:
        """Return every output that streams asked for, of the aligned faces of a batch, one at least."""
        if self.runtime != TORCH:
            return batch.once((self, seen), lambda: self._run_compiled(faces_of(batch, self.size), self._asked[seen]))
        from emofuse.streams.networks.presets import squares_of_faces

        return self.run(batch, seen, lambda: squares_of_faces(batch, self.size, self.device))

    def run(
        self, batch: SampleBatch, seen: Hashable, pictures: Callable[[], torch.Tensor]
    ) -> Mapping[Output, npt.NDArray[np.float32]]:
        """Return every output that streams asked for, of n >= 1 pictures (n, 3, H, W) uint8 on the device."""
        return batch.once((self, seen), lambda: self._run(pictures(), self._asked[seen]))

    def forward(self, pictures: torch.Tensor, wanted: Collection[Output]) -> dict[Output, torch.Tensor]:
        """Compute outputs (B, ...) float32 from (B, 3, H, W) uint8, both on the device."""
        import torch

        batch = self.preset.normalise(pictures).to(self._dtype, memory_format=torch.channels_last)
        outputs = self._made.outputs(self.network, batch, wanted)
        return {
            output: outputs[output].float().flatten(1) if output == "pooled" else outputs[output].float()
            for output in wanted
        }

    @property
    def _dtype(self) -> torch.dtype:
        import torch

        return torch.bfloat16 if self._precision == "bfloat16" else torch.float32

    def _recall(self) -> None:
        """Take the square and the shapes of the network from its kept form, if there is one."""
        kept = None if self._identity is None else read_kept(self._key(None))
        if kept is not None:
            self._square = Square.from_facts(kept.facts["square"])
            self._shapes = {output: tuple(shape) for output, shape in kept.facts["shapes"].items()}

    def _remember(self) -> None:
        """Keep the square and the shapes of the network, if its preset is one of torchvision."""
        from emofuse.streams.networks.presets import Preset

        if self._identity is not None and isinstance(self.preset, Preset):
            facts = {"square": self.preset.square.facts(), "shapes": {k: list(v) for k, v in self._shapes.items()}}
            keep(self._key(None), facts)

    def _key(self, wanted: frozenset[Output] | None) -> str:
        """Return the name of the kept network with some outputs, and for None that of its square and shapes."""
        outputs = None if wanted is None else sorted(wanted)
        return backbone_key(self._identity, outputs, threads=self._threads, precision=self._precision)

    def _compile(self) -> None:
        """Compile the network for each set of outputs that streams store together, or open its kept form.

        Raises:
            ConversionError: it cannot be compiled.
        """
        for wanted in sorted({frozenset(outputs) for outputs in self._asked.values()}, key=sorted):
            self._compiled[wanted] = self._opened(wanted)
        self.runtime = openvino_record()

    def _opened(self, wanted: frozenset[Output]) -> CompiledNetwork:
        if self._identity is None or self._threads is None:
            return self._converted(wanted, None)
        key = self._key(wanted)
        bfloat16 = self._precision == "bfloat16"
        opened = open_kept_network(key, self._threads, bfloat16=bfloat16)
        if opened is not None:
            return opened
        with converting(key):
            opened = open_kept_network(key, self._threads, bfloat16=bfloat16)
            if opened is None:
                opened = self._converted(wanted, key)
                self._remember()
        return opened

    def _converted(self, wanted: frozenset[Output], key: str | None) -> CompiledNetwork:
        from emofuse.streams.networks.compiled import compile_network, noise
        from emofuse.streams.networks.graphs import PictureGraph

        outputs, example = sorted(wanted), noise(1, 3, *self.size)
        if self._precision == "float32":
            graph = PictureGraph(self._made, self.network, outputs)
            return compile_network(graph, [example], threads=self._threads, key=key)
        made = self._make()  # in float32, which the compiled network rounds by itself
        exact = PictureGraph(made, made.module, outputs)
        rough = PictureGraph(self._made, self.network, outputs, dtype=self._dtype)
        return compile_network(exact, [example], threads=self._threads, key=key, rough=rough)

    def _run(self, pictures: torch.Tensor, wanted: Collection[Output]) -> dict[Output, npt.NDArray[np.float32]]:
        if self.runtime != TORCH:
            return self._run_compiled(pictures.numpy(), wanted)
        import torch

        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        size = _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH
        with torch.inference_mode(), exact:
            parts = [self.forward(part, wanted) for part in torch.split(pictures, size)]
            return {output: torch.cat([part[output] for part in parts]).cpu().contiguous().numpy() for output in wanted}

    def _run_compiled(
        self, pictures: npt.NDArray[np.uint8], wanted: Collection[Output]
    ) -> dict[Output, npt.NDArray[np.float32]]:
        compiled = self._compiled[frozenset(wanted)]
        of_pictures = [compiled(picture[None]) for picture in pictures]
        return {
            output: np.concatenate([outputs[place] for outputs in of_pictures])
            for place, output in enumerate(sorted(wanted))
        }


def backbone_key(
    identity: Mapping[str, Any] | None, outputs: list[Output] | None, *, threads: int | None, precision: Precision
) -> str:
    """Return the name of a kept network with some outputs, and for None that of its square and shapes."""
    return network_key(network=identity, outputs=outputs, threads=threads, precision=precision)
