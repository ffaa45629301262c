"""The runtime that computes the networks of an extractor: PyTorch, or OpenVINO, which takes half its time on CPUs.

A network that streams make inside `networks_on` registers itself there. When all streams are made, it is compiled for
what they store. A network outside computes with PyTorch. The runtime is no part of a stream's identity: OpenVINO's
float32 differs from PyTorch's by a few millionths of the largest value (`docs/runtimes.md`).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, cast, get_args

import psutil

from emofuse.errors import StreamError

Runtime = Literal["auto", "torch", "openvino"]
"""A runtime as a user asks for it. `auto` is OpenVINO for networks on a CPU where it is installed, else PyTorch."""

VARIABLE = "EMOFUSE_RUNTIME"
"""The environment variable that says what `auto` means on a machine: `torch` or `openvino`."""

TORCH = "torch"
"""The name of PyTorch in records of what computed the features of a stream; OpenVINO's has its version."""

_TELEMETRY = "openvino_telemetry"


class ConversionError(Exception):
    """A network cannot be compiled, or its compiled form computes something else. The message is one line."""


class NetworkRuntimes:
    """The runtime of the networks of one extractor.

    Args:
        wanted: the runtime that was asked for.
        device: the device of the networks, as torch names it.
        threads: the threads of a network; None means as many as PyTorch uses.

    Attributes:
        compiles: whether networks are compiled.
        threads: the threads of a compiled network; None for networks in PyTorch unless they were given.
        notes: why networks compute with PyTorch although `auto` would compile them, one line each.

    Raises:
        StreamError: OpenVINO was asked for by name and is not installed, or the device is a GPU.
    """

    def __init__(self, wanted: Runtime = "torch", device: str = "cpu", *, threads: int | None = None) -> None:
        self.compiles = resolve_runtime(wanted, device) == "openvino"
        self.threads = _native_threads() if self.compiles and threads is None else threads
        self.notes: list[str] = []
        self._is_explicit = wanted == "openvino"
        self._networks: list[tuple[str, Callable[[], None]]] = []

    def register(self, name: str, compile_network: Callable[[], None]) -> None:
        """Note a network.

        Args:
            name: the name of the network, for messages.
            compile_network: compiles it, once all streams are made. It raises `ConversionError` if this fails.
        """
        if self.compiles:
            self._networks.append((name, compile_network))

    def compile_all(self) -> None:
        """Compile all networks that were registered; those that another process converts now come last.

        Raises:
            StreamError: a network cannot be compiled, and OpenVINO was asked for by name.
        """
        from emofuse.streams.networks.kept import IsConvertedElsewhereError, not_waiting

        networks, self._networks = self._networks, []
        elsewhere = []
        with not_waiting():
            for network in networks:
                try:
                    self._compile(*network)
                except IsConvertedElsewhereError:
                    elsewhere.append(network)
        for network in elsewhere:
            self._compile(*network)

    def _compile(self, name: str, compile_network: Callable[[], None]) -> None:
        try:
            compile_network()
        except ConversionError as error:
            if self._is_explicit:
                raise StreamError(
                    f"the network {name} does not run in OpenVINO: {error}. Use --runtime auto or torch"
                ) from error
            self.notes.append(f"the network {name} ran in PyTorch, because OpenVINO cannot run it: {error}")


def resolve_runtime(wanted: Runtime, device: str) -> Literal["torch", "openvino"]:
    """Return the runtime for networks on a device of this machine.

    Raises:
        StreamError: OpenVINO was asked for by name and is not installed, the device is a GPU, or `EMOFUSE_RUNTIME` has
            an unknown value.
    """
    if wanted == "auto":
        wanted = _default_runtime()
        if wanted == "auto":
            return "openvino" if device == "cpu" and openvino_version() is not None else "torch"
        if device != "cpu":
            return "torch"
    if wanted == "torch":
        return "torch"
    if device != "cpu":
        raise StreamError(f"runtime openvino computes networks on the CPU, the device is {device}. Add --device cpu")
    if openvino_version() is None:
        raise StreamError("runtime openvino needs openvino, which is not installed: pip install 'emofuse[fast]'")
    return "openvino"


def openvino_version() -> str | None:
    """Return the version of the installed OpenVINO without importing it, None if it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    try:
        return version("openvino").partition("-")[0]
    except PackageNotFoundError:
        return None


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    The package reports its import and each conversion to a server of Google, and writes an id of the user to the home
    folder. Without the package `openvino_telemetry` it does neither, so that one is hidden while it is imported.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


def openvino_record() -> str:
    """Return the name of OpenVINO in records, with its version: `openvino 2026.4.1`."""
    return f"openvino {openvino_version()}"


_RUNTIMES: ContextVar[NetworkRuntimes | None] = ContextVar("emofuse_network_runtimes", default=None)


@contextmanager
def networks_on(runtimes: NetworkRuntimes) -> Iterator[None]:
    """Let the networks that are made inside the context register at these runtimes."""
    token = _RUNTIMES.set(runtimes)
    try:
        yield
    finally:
        _RUNTIMES.reset(token)


def present_runtimes() -> NetworkRuntimes:
    """Return the runtimes of the context; outside of any, networks compute with PyTorch."""
    return _RUNTIMES.get() or NetworkRuntimes()


def _default_runtime() -> Runtime:
    """Return what `auto` means by the environment.

    Raises:
        StreamError: the variable has an unknown value.
    """
    value = os.environ.get(VARIABLE) or "auto"
    if value not in get_args(Runtime):
        raise StreamError(f"{VARIABLE}: expected one of {', '.join(get_args(Runtime))}, got {value!r}")
    return cast("Runtime", value)


def _native_threads() -> int:
    """Return the threads that PyTorch uses, without importing it: those of the environment, or one a core."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))
