"""The import of torchvision without PyTorch's compiler, which it imports for one function that nothing here calls.

The compiler takes longer to import than PyTorch and torchvision together: 1.2 seconds of a core in every process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def import_torchvision() -> None:
    """Import torchvision; a release that needs more of the compiler than that function is imported as usual."""
    if "torchvision" in sys.modules or _COMPILER[0] in sys.modules or not importlib.util.find_spec("torchvision"):
        return
    package, utils = (ModuleType(name) for name in _COMPILER)
    package.utils = utils  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {package.__name__: package, utils.__name__: utils}
    try:
        importlib.import_module("torchvision")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    finally:
        for name in _COMPILER:
            sys.modules.pop(name, None)


def _is_compile_supported(device: str) -> bool:
    """Ask the compiler, which is imported now."""
    supported: bool = importlib.import_module(_COMPILER[1]).is_compile_supported(device)
    return supported
