"""Libraries that only some media need: they are extras of the package, and imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from emofuse.errors import StreamError


def import_library(name: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a library of an extra.

    Args:
        name: the name of the module.
        extra: the extra of emofuse that installs it.
        purpose: what needs it, for the message.

    Raises:
        StreamError: it is not installed, or cannot be loaded on this machine.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise StreamError(f"{purpose} need {name}, which is not installed: pip install 'emofuse[{extra}]'") from None
    except (ImportError, OSError) as error:
        raise StreamError(f"{purpose} need {name}, which cannot be loaded: {error}") from error
