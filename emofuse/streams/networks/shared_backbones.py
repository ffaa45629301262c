"""Networks of pictures on their devices, which run once on a batch for all streams that store outputs of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from emofuse.specs.weights import Precision
from emofuse.streams.base import SampleBatch
from emofuse.streams.networks.classification import to_device
from emofuse.streams.networks.compiled import CompiledNetwork, compile_network, noise
from emofuse.streams.networks.outputs import Output, PictureNetwork
from emofuse.streams.runtimes import TORCH, ConversionError, openvino_record, present_runtimes

_CPU_BATCH = 4  # the fastest on one core: 16 falls out of its cache (benchmarks/steps.py)
_GPU_BATCH = 64


class SharedBackbone:
    """A network on its device, which runs once on a batch for all streams that store outputs of it.

    float32 runs without TF32 on every device. In bfloat16 the weights and all values between layers are bfloat16, and
    sums within a layer are float32. On a CPU the network may be compiled (see `emofuse.streams.runtimes`). It then
    takes its pictures one by one, which is as fast as several at once and gives the same bytes for every block size.

    Attributes:
        network: the network without its classifier.
        preset: its resize, crop and normalisation.
        device: its device.
        runtime: what computes it: `torch`, or `openvino` with its version.
    """

    def __init__(self, made: PictureNetwork, device: str, precision: Precision = "float32", name: str = "") -> None:
        self.preset = made.preset
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.network = to_device(made.module, device).to(self._dtype)
        self.device = torch.device(device)
        self._made = made
        self._batch = _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH
        self._asked: dict[Hashable, set[Output]] = {}  # what the network sees -> the outputs that streams store
        self._compiled: dict[frozenset[Output], CompiledNetwork] = {}
        self.runtime = TORCH
        runtimes = present_runtimes()
        self._threads = runtimes.threads
        runtimes.register(name or type(made.module).__name__, self._compile)

    def ask(self, output: Output, seen: Hashable) -> tuple[int, ...]:
        """Note that a stream stores an output of the pictures that `seen` stands for, and return the shape of its rows.

        Raises:
            StreamError: the network has no such output.
        """
        shape = self._made.shape(output)
        self._asked.setdefault(seen, set()).add(output)
        return shape

    def run(
        self, batch: SampleBatch, seen: Hashable, pictures: Callable[[], torch.Tensor]
    ) -> Mapping[Output, npt.NDArray[np.float32]]:
        """Return every output that streams asked for, of n >= 1 pictures (n, 3, H, W) uint8 on the device."""
        return batch.once((self, seen), lambda: self._run(pictures(), self._asked[seen]))

    def _compile(self) -> None:
        """Compile the network for each set of outputs that streams store together.

        Raises:
            ConversionError: it cannot be compiled.
        """
        if self._dtype != torch.float32:
            raise ConversionError("precision bfloat16 is that of PyTorch, whose sums OpenVINO does not repeat")
        example = noise(1, 3, *self.preset.size)
        for wanted in sorted({frozenset(outputs) for outputs in self._asked.values()}, key=sorted):
            graph = _PictureGraph(self._made, self.network, sorted(wanted))
            self._compiled[wanted] = compile_network(graph, [example], threads=self._threads)
        self.runtime = openvino_record()

    def _run(self, pictures: torch.Tensor, wanted: Collection[Output]) -> dict[Output, npt.NDArray[np.float32]]:
        if self.runtime != TORCH:
            compiled = self._compiled[frozenset(wanted)]
            of_pictures = [compiled(picture[None]) for picture in pictures.numpy()]
            return {
                output: np.concatenate([outputs[place] for outputs in of_pictures])
                for place, output in enumerate(sorted(wanted))
            }
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            parts = [self.forward(part, wanted) for part in torch.split(pictures, self._batch)]
            return {output: torch.cat([part[output] for part in parts]).cpu().contiguous().numpy() for output in wanted}

    def forward(self, pictures: torch.Tensor, wanted: Collection[Output]) -> dict[Output, torch.Tensor]:
        """Compute outputs (B, ...) float32 from (B, 3, H, W) uint8, both on the device."""
        batch = self.preset.normalise(pictures).to(self._dtype, memory_format=torch.channels_last)
        outputs = self._made.outputs(self.network, batch, wanted)
        return {
            output: outputs[output].float().flatten(1) if output == "pooled" else outputs[output].float()
            for output in wanted
        }


class _PictureGraph(nn.Module):
    """A network with the normalisation of its pictures: (B, 3, H, W) uint8 -> its outputs, float32."""

    def __init__(self, made: PictureNetwork, network: nn.Module, wanted: list[Output]) -> None:
        super().__init__()
        self.network = network
        self._made, self._wanted = made, wanted

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs in their order, pooled ones as vectors."""
        outputs = self._made.outputs(self.network, self._made.preset.normalise(pictures), self._wanted)
        return tuple(outputs[name].flatten(1) if name == "pooled" else outputs[name] for name in self._wanted)
