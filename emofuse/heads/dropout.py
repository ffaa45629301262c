"""Dropout whose zeros depend on the member alone, never on who trains beside it.

A random generator that serves a whole group would give a member other zeros as soon as another one leaves, and a
resumed sweep another result. A generator a member would be K generators a step. So each place of a head and step of the
training has one noise of uniform numbers, seeded by (order seed, step, place), and a member reads the noise from an
offset that its own seed gives. Members that share a seed share their zeros: they are compared under equal luck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.members import Members

OFFSETS = 4096
"""How many different offsets there are; a noise is this much longer than what a member reads."""


def named_generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers depend on (seed, name) and the kind of device alone."""
    mixed = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed[:8], "big") >> 1)  # 63 bits: a signed 64-bit seed


def noise_offset(seed: int) -> int:
    """Where a member with this seed begins to read, 0 <= offset < OFFSETS."""
    return int.from_bytes(hashlib.sha256(f"{seed}:dropout".encode()).digest()[:4], "big") % OFFSETS


class Noise:
    """The numbers of one step. They keep their memory from step to step, as a captured CUDA graph asks for.

    Args:
        order_seed: of the group.
        rows: most rows that a batch has; a noise's length must not depend on this batch's.
        device: where heads train.
    """

    def __init__(self, order_seed: int, rows: int, device: torch.device) -> None:
        self._order_seed = order_seed
        self._rows = rows
        self._device = device
        self._step = 0
        self._values: dict[str, Tensor] = {}

    def advance(self, step: int) -> None:
        """Draws the numbers of the given step, counted through all epochs."""
        self._step = step
        for place in self._values:
            self._draw(place)

    def values(self, place: str, width: int) -> Tensor:
        """(rows x width + OFFSETS,) float32 in [0, 1), of a place where each row has `width` values."""
        if place not in self._values:
            self._values[place] = torch.empty(self._rows * width + OFFSETS, device=self._device)
            self._draw(place)
        return self._values[place]

    def _draw(self, place: str) -> None:
        generator = named_generator(self._order_seed, f"dropout {self._step} {place}", self._device)
        self._values[place].uniform_(generator=generator)


class Dropout(nn.Module):
    """Zeroes each member's own share of values and scales the others up, where there is noise; else does nothing.

    Args:
        members: that it serves.
        places: names of what it serves, one a token for values with tokens. They must mean the same in a head that has
            fewer streams.
    """

    share: Tensor
    offsets: Tensor

    def __init__(self, members: Members, places: Sequence[str]) -> None:
        super().__init__()
        self.members = members
        self.places = tuple(places)
        self.active = any(member.dropout > 0 for member in members.group)
        shares = torch.tensor([member.dropout for member in members.group], dtype=torch.float64)
        offsets = torch.tensor([noise_offset(member.seed) for member in members.group], dtype=torch.int64)
        self.register_buffer("share", shares.reshape(-1, 1, 1), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, values: Tensor, noise: Noise | None) -> Tensor:
        """(n, B, T x H) of values of that shape, T = number of places."""
        if noise is None or not self.active:
            return values
        _, rows, wide = values.shape
        width = wide // len(self.places)
        kept = [self._kept(noise.values(place, width), rows, width) for place in self.places]
        return values * torch.cat(kept, dim=2).to(values.dtype) / (1 - self.share).to(values.dtype)

    def _kept(self, noise: Tensor, rows: int, width: int) -> Tensor:
        """(n, rows, width) bool: member k reads `rows * width` numbers of the noise from its offset on."""
        read = noise.unfold(0, rows * width, 1)[self.offsets].view(-1, rows, width)
        return read >= self.share.to(read.dtype)
