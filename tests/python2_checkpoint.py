"""Writes checkpoints as PyTorch 0.2 under Python 2.7 wrote them on a GPU, Places365's among them.

Not a zip: five pickles one after the other (magic number, protocol version, system, object, keys of the storages) and
then the bytes of every storage. Strings are Python 2's byte strings, tensors lie on `cuda:0`.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION


class _Storage:
    """Stands for a storage in the pickle; never pickled itself."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class _Python2Pickler(pickle._Pickler):
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, file: Any, storages: dict[str, torch.Tensor]) -> None:
        super().__init__(file, protocol=2)
        self._storages = storages

    def save_str(self, text: str) -> None:
        data = text.encode("latin-1")
        assert len(data) < 256
        self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        self.memoize(text)

    dispatch[str] = save_str

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        key = str(len(self._storages))
        self._storages[key] = value.tensor
        kind = torch.cuda.FloatStorage if value.tensor.dtype is torch.float32 else torch.cuda.LongStorage
        return ("storage", kind, key, "cuda:0", value.tensor.numel(), None)

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch._utils._rebuild_tensor, (_Storage(value), 0, tuple(value.shape), value.stride())
        return NotImplemented


def write_python2_checkpoint(path: Path, value: Any) -> None:
    """`value`: containers, numbers, strings and contiguous float32 or int64 tensors."""
    storages: dict[str, torch.Tensor] = {}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with path.open("wb") as file:
        for plain in (MAGIC_NUMBER, PROTOCOL_VERSION, system):
            _Python2Pickler(file, storages).dump(plain)
        _Python2Pickler(file, storages).dump(value)
        _Python2Pickler(file, storages).dump(sorted(storages))
        for key in sorted(storages):
            tensor = storages[key]
            file.write(struct.pack("<q", tensor.numel()))
            file.write(tensor.contiguous().numpy().tobytes())
