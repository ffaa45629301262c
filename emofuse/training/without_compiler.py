"""Operations on tensors without memory, or under a dispatch mode, without importing PyTorch's compiler.

torch keeps its compiler out of such operations, and imports it in order to do so: a second of a core for nothing, since
nothing here is compiled.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Return a context in which torch does not import its compiler to keep it out of an operation.

    If it is imported already, nothing changes. What is remembered of an operation asks it as soon as it is.
    """
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(_COMPILER)
    stand_in.disable = _keep_out  # type: ignore[attr-defined]
    sys.modules[_COMPILER] = stand_in
    torch._dynamo = stand_in  # noqa: SLF001  torch reads the module from there
    try:
        yield
    finally:
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]
            del torch._dynamo  # noqa: SLF001


def _keep_out(function: Callable[..., Any], recursive: bool = True, *, wrapping: bool = True) -> Callable[..., Any]:
    """Return the function as `torch._dynamo.disable` does, which is asked once the compiler is there."""
    kept_out: list[Callable[..., Any]] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not kept_out and isinstance(getattr(sys.modules.get(_COMPILER), "__file__", None), str):
            kept_out.append(importlib.import_module(_COMPILER).disable(function, recursive, wrapping=wrapping))
        return (kept_out[0] if kept_out else function)(*args, **kwargs)

    return call
