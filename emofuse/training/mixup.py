"""Mixup (Zhang et al., ICLR 2018; Verma et al., ICML 2019): heads train on mixtures of two rows and of their losses.

In each step, each member draws one share lambda from Beta(alpha, alpha) and one order of the rows that it sees. The row
at a place is mixed with the row that the order puts there, lambda to 1 - lambda, and so are their losses. Both draws
read the noise of the group at the member's own offset (see `emofuse.heads.dropout`), so they do not depend on the other
members. Rows that only fill the batch are nobody's partners. `emofuse.heads.mixing` says what is mixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.heads.dropout import Noise, noise_offset
from emofuse.heads.mixing import RowMix
from emofuse.specs import TrainSpec

SHARES = 4096
"""The number of different shares that a member draws from, the quantiles in the middle of as many equal parts."""
_LAST = 2.0


class Mixup:
    """The mixtures of K members.

    Args:
        trains: the optimisation of each member; those with `mixup` 0 keep their rows to the last bit.
        device: the device of the heads.
        dtype: the type of the weights.
    """

    def __init__(self, trains: Sequence[TrainSpec], *, device: torch.device, dtype: torch.dtype) -> None:
        shares = np.stack([beta_quantiles(train.mixup) for train in trains])
        self._shares = torch.from_numpy(shares).to(device, dtype)  # (K, SHARES)
        self._mixes = torch.tensor([[train.mixup > 0] for train in trains], device=device)  # (K, 1)
        self._offsets = torch.tensor([noise_offset(train.seed) for train in trains], device=device)

    def draw(self, present: Tensor, noise: Noise) -> RowMix:
        """Return the mixtures of one step; `present` is bool (K, B), true for the rows that each member trains on."""
        rows = present.shape[1]
        numbers = noise.values("mixup partners", 1).unfold(0, rows, 1)[self._offsets]
        order = torch.where(present, numbers, _LAST).argsort(dim=1, stable=True)
        partners = torch.where(self._mixes, order, torch.arange(rows, device=order.device))
        place = (noise.values("mixup share", 0)[self._offsets] * SHARES).to(torch.int64)
        return RowMix(partners, self._shares.gather(1, place.unsqueeze(1)))


def beta_quantiles(alpha: float) -> npt.NDArray[np.float64]:
    """Return `SHARES` quantiles of Beta(alpha, alpha), which is 1 everywhere for alpha 0, float64."""
    if alpha == 0:
        return np.ones(SHARES)
    from scipy.special import betaincinv  # loaded here, because only mixup needs it

    places = (np.arange(SHARES) + 0.5) / SHARES
    quantiles: npt.NDArray[np.float64] = betaincinv(alpha, alpha, places)
    return quantiles
