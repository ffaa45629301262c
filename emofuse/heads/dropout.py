"""Dropout whose zeros depend on the member alone, not on the other members of its group.

One random generator for a whole group would change a member's zeros as soon as another member leaves, and the result of
a resumed sweep. One generator for each member would be K generators in every step. So every place of a head has one
array of uniform numbers in every step, its noise, seeded by (order seed, step, place). A member reads the noise from an
offset that follows from its seed. Members that share a seed share their zeros and so are compared on equal terms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from emofuse.heads.members import Members

OFFSETS = 4096
"""The number of different offsets. The noise is longer by this number than the part that a member reads."""


def named_generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator whose numbers depend only on the seed, the name and the kind of device."""
    mixed = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed[:8], "big") >> 1)  # 63 bits: a signed 64-bit seed


def noise_offset(seed: int) -> int:
    """Return the offset at which a member with this seed begins to read, 0 <= offset < OFFSETS."""
    return int.from_bytes(hashlib.sha256(f"{seed}:dropout".encode()).digest()[:4], "big") % OFFSETS


class Noise:
    """The noise of one step. It keeps its memory from step to step, as a captured CUDA graph requires.

    Args:
        order_seed: the seed of the group's order of rows.
        rows: the largest number of rows of any batch, so that the length does not depend on the current batch.
        device: the device on which the heads train.
    """

    def __init__(self, order_seed: int, rows: int, device: torch.device) -> None:
        self._order_seed = order_seed
        self._rows = rows
        self._device = device
        self._step = 0
        self._values: dict[str, Tensor] = {}

    def advance(self, step: int) -> None:
        """Draw the numbers of the given step, counted through all epochs."""
        self._step = step
        for place in self._values:
            self._draw(place)

    def values(self, place: str, width: int) -> Tensor:
        """Return the noise (rows x width + OFFSETS,) float32 in [0, 1) of a place where each row has `width` values."""
        if place not in self._values:
            self._values[place] = torch.empty(self._rows * width + OFFSETS, device=self._device)
            self._draw(place)
        return self._values[place]

    def _draw(self, place: str) -> None:
        generator = named_generator(self._order_seed, f"dropout {self._step} {place}", self._device)
        self._values[place].uniform_(generator=generator)


class Dropout(nn.Module):
    """Set each member's share of values to zero and scale up the others. Without noise the values stay as they are.

    Args:
        members: the members of the layer.
        places: the names of the places, one for each token of values with tokens. A name must mean the same place in a
            head with fewer streams.
        option: the share of a member that counts.
    """

    share: Tensor
    offsets: Tensor

    def __init__(
        self, members: Members, places: Sequence[str], option: Literal["dropout", "stem_dropout"] = "dropout"
    ) -> None:
        super().__init__()
        self.members = members
        self.places = tuple(places)
        listed = [float(getattr(member, option)) for member in members.group]
        self.active = any(share > 0 for share in listed)
        shares = torch.tensor(listed, dtype=torch.float64)
        offsets = torch.tensor([noise_offset(member.seed) for member in members.group], dtype=torch.int64)
        self.register_buffer("share", shares.reshape(-1, 1, 1), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, values: Tensor, noise: Noise | None) -> Tensor:
        """Return values (n, B, T x H) after dropout; T is the number of places."""
        if noise is None or not self.active:
            return values
        _, rows, wide = values.shape
        width = wide // len(self.places)
        kept = [self._kept(noise.values(place, width), rows, width) for place in self.places]
        return values * torch.cat(kept, dim=2).to(values.dtype) / (1 - self.share).to(values.dtype)

    def _kept(self, noise: Tensor, rows: int, width: int) -> Tensor:
        """Return which values are kept, bool (n, rows, width). Member k reads the noise from its offset on."""
        read = noise.unfold(0, rows * width, 1)[self.offsets].view(-1, rows, width)
        return read >= self.share.to(read.dtype)
