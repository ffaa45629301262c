"""Compiled networks at work: opened, kept for other processes and run, without PyTorch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.streams.networks.kept import keep, read_kept
from emofuse.streams.runtimes import import_openvino

Arrays = tuple[npt.NDArray[Any], ...]


class CompiledNetwork:
    """A compiled network on the CPU: arrays -> arrays. Two threads must not use it at once."""

    def __init__(self, compiled: Any, memory: object = None) -> None:
        self._compiled = compiled
        self._memory = memory  # in which its weights may lie, so that it must live as long
        self._request = compiled.create_infer_request()
        self._outputs = len(compiled.outputs)

    def __call__(self, *inputs: npt.NDArray[Any]) -> Arrays:
        """Return the outputs of the network, copied."""
        returned = self._request.infer(list(inputs), share_inputs=True, share_outputs=False)
        return tuple(returned[index] for index in range(self._outputs))

    def keep(self, key: str) -> None:
        """Keep the network for later processes."""
        keep(key, {}, self._compiled.export_model().getvalue())


def settings(threads: int, *, bfloat16: bool = False) -> dict[str, Any]:
    """Return the settings of OpenVINO with which networks are compiled and opened."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",  # bfloat16 is else the default of CPUs that have it
        "ENABLE_CPU_PINNING": False,  # several workers would be bound to the same core
    }


def compile_model(model: Any, threads: int, *, bfloat16: bool = False) -> CompiledNetwork:
    """Compile a model of OpenVINO for this CPU."""
    return CompiledNetwork(_core().compile_model(model, "CPU", settings(threads, bfloat16=bfloat16)))


def open_kept_network(key: str, threads: int, *, bfloat16: bool = False) -> CompiledNetwork | None:
    """Open a compiled network that another process has kept; None if there is none, or OpenVINO does not take it."""
    kept = read_kept(key)
    if kept is None or not len(kept.data):
        return None
    exported = import_openvino().Tensor(np.frombuffer(kept.data, dtype=np.uint8), shared_memory=True)
    try:
        compiled = _core().import_model(exported, "CPU", settings(threads, bfloat16=bfloat16))
    except RuntimeError:  # it is of another build of OpenVINO, and is converted again
        return None
    return CompiledNetwork(compiled, exported)


def has_bfloat16() -> bool:
    """Return whether OpenVINO computes bfloat16 on this CPU by its own instructions."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@lru_cache(maxsize=1)
def _core() -> Any:
    return import_openvino().Core()
