"""Loading the tensors of a checkpoint, and nothing but tensors."""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emofuse.errors import WeightsError
from emofuse.weights.content import why_no_model

if TYPE_CHECKING:
    import torch

_WRAPPED = "state_dict"
_DATA_PARALLEL = "module."


def load_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Load the state dict of a file onto the CPU: torch's zip format, its older format, or safetensors by suffix.

    Loading is weights-only: a file that holds anything but tensors and plain containers is refused, so that no file can
    run code. The `state_dict` of a training checkpoint is unwrapped, and the prefix `module.` of torch's DataParallel
    is removed. Files pickled by Python 2 (Places365) may hold byte strings that are not ASCII; they are read as
    Latin-1.

    Raises:
        WeightsError: there is no such file, or it is no checkpoint, is damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}")
    reason = why_no_model(path)
    if reason is not None:
        raise WeightsError(f"{path} {reason}")
    loaded = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    return _state_dict(loaded, path)


def _load_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a complete safetensors file ({error})") from None


def _load_torch(path: Path) -> Any:
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except UnicodeDecodeError:
            with warnings.catch_warnings():  # torch warns that weights-only ignores the encoding, but uses it
                warnings.simplefilter("ignore", UserWarning)
                return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: only tensors and plain containers are read, so that no file can run code, and this "
            f"one is damaged or holds more ({_reason(error)}). Save the state dict alone: "
            "torch.save(model.state_dict(), ...)"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a complete torch checkpoint ({_reason(error)})") from None


def _state_dict(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

    state = loaded[_WRAPPED] if isinstance(loaded, Mapping) and _WRAPPED in loaded else loaded
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(
            f"{path} holds no state dict: expected names of parameters with tensors, or such a dict under 'state_dict'"
        )
    unprefixed = OrderedDict(state)
    unprefixed.__dict__.update(getattr(state, "__dict__", {}))  # versions of modules, which some networks need
    consume_prefix_in_state_dict_if_present(unprefixed, _DATA_PARALLEL)
    return unprefixed


def _reason(error: Exception) -> str:
    """Return the reason of a torch error without torch's long explanation."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return f"found {refused.group(1)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
