"""The conversion of networks to graphs that OpenVINO compiles for this CPU (extra `fast`).

A network is traced, converted, compiled and then held to PyTorch's results, which takes about a second. What passed is
kept on this machine for other processes (see `kept`). The graph computes in float32 also where the CPU has bfloat16,
with a fixed number of threads and one request at a time, so that the same input gives the same bytes whatever else
runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from emofuse.streams.networks.running import CompiledNetwork, compile_model, has_bfloat16
from emofuse.streams.runtimes import ConversionError, import_openvino

TOLERANCE = 1e-3
"""The largest difference from PyTorch's values that is accepted, as a share of the largest of them.

Published weights differ by 3e-6, random ones by up to 5e-5 (`benchmarks/results/runtimes_*.json`)."""


def compile_network(
    network: nn.Module,
    examples: Sequence[torch.Tensor],
    *,
    dynamic: Sequence[int] = (),
    threads: int | None = None,
    key: str | None = None,
    rough: nn.Module | None = None,
) -> CompiledNetwork:
    """Compile a network of one input, and hold it to PyTorch's results.

    Args:
        network: the network, which takes one tensor and returns a tensor or a tuple of tensors.
        examples: inputs for which both must agree, one at least. The first one is traced.
        dynamic: the axes of the input whose length may differ; all others have the length of the example.
        threads: the threads of the network; None means as many as PyTorch uses.
        key: the name under which the network is kept when it has passed; None keeps nothing.
        rough: the same network in PyTorch's bfloat16. The compiled network then computes in bfloat16 too, and may be
            twice as far from the float32 of `network` as this one is.

    Raises:
        ConversionError: the network cannot be converted or compiled, or its compiled form computes something else.
    """
    shape = [-1 if axis in dynamic else length for axis, length in enumerate(examples[0].shape)]
    if rough is not None and not has_bfloat16():
        raise ConversionError("this CPU has no instructions for bfloat16")
    try:
        threads = threads or torch.get_num_threads()
        compiled = _compile(network, examples[0], shape, threads, bfloat16=rough is not None)
        for example in examples:
            _check(network, compiled, example, rough)
        if key is not None:
            compiled.keep(key)
    except ConversionError:
        raise
    except Exception as error:  # tracing runs foreign code, and OpenVINO raises errors of all kinds
        text = " ".join(str(error).split())
        raise ConversionError(f"{type(error).__name__}: {text[:200]}") from error
    return compiled


def _compile(
    network: nn.Module, example: torch.Tensor, shape: list[int], threads: int, *, bfloat16: bool
) -> CompiledNetwork:
    model = converted_model(network, example)
    model.reshape(import_openvino().PartialShape(shape))
    return compile_model(model, threads, bfloat16=bfloat16)


def converted_model(network: nn.Module, example: torch.Tensor) -> Any:
    """Return the network as a model of OpenVINO."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), _traceable():
        traced = torch.jit.trace(network, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)  # held until its graph is converted
        return frontend.convert(frontend.load(decoder))


def _check(network: nn.Module, compiled: CompiledNetwork, example: torch.Tensor, rough: nn.Module | None) -> None:
    """Check that PyTorch and the compiled network give the same outputs.

    Raises:
        ConversionError: they do not.
    """
    expected = _outputs(network, example)
    allowed = [TOLERANCE] * len(expected)
    if rough is not None:
        allowed = [2 * difference(*pair) for pair in zip(_outputs(rough, example), expected, strict=True)]
    for output, values, most in zip(compiled(example.numpy()), expected, allowed, strict=True):
        if output.shape != values.shape:
            raise ConversionError(f"it gives {output.shape} where PyTorch gives {values.shape}")
        apart = difference(output, values)
        if not apart <= most:
            raise ConversionError(f"its values differ from PyTorch's by {apart:.2g} of the largest one")


def _outputs(network: nn.Module, example: torch.Tensor) -> list[npt.NDArray[np.float32]]:
    with torch.inference_mode():
        returned = network(example)
    outputs = (returned,) if isinstance(returned, torch.Tensor) else returned
    return [output.float().numpy() for output in outputs]


def difference(values: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the largest difference of two arrays as a share of the largest expected value."""
    largest = float(np.abs(expected).max(initial=0.0))
    apart = float(np.abs(values - expected).max(initial=0.0))
    return apart / largest if largest > 0 else apart


def noise(*shape: int) -> torch.Tensor:
    """Return seeded uint8 noise of a shape, on which a compiled network is held to PyTorch's."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@contextmanager
def _traceable() -> Iterator[None]:
    """Switch off what a trace cannot hold: PyTorch's fast path of attention, and its warnings on sizes as constants."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
