"""Stream dropout (modality dropout: Neverova et al., TPAMI 2016): in training, rows lack some streams at random.

In each step, for each member, row and stream that the row has, one number u is drawn from the noise of the group, at
the member's own offset (see `emofuse.heads.dropout`). The member does not see the stream if u < `train.stream_dropout`,
except for the stream with the largest u, so that no row loses all its streams. Heads treat such a row like one that
lacks the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from emofuse.heads.dropout import Noise, noise_offset
from emofuse.heads.members import HeadBatch, Members, stream_of
from emofuse.training.members import Member

_NOT_THERE = -1.0


class StreamDropout:
    """The stream dropout of K members.

    Attributes:
        active: whether each member ever loses a stream, bool (K,).

    Args:
        members: the members of the group.
        axis: the same members, as layers of all heads have them.
        streams: the streams of all members together.
        device: the device of the heads.
    """

    def __init__(self, members: Sequence[Member], axis: Members, streams: Sequence[str], device: torch.device) -> None:
        self._axis = axis
        self._streams = tuple(streams)
        shares = [member.train.stream_dropout if len(member.streams) > 1 else 0.0 for member in members]
        self._share = torch.tensor(shares, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.active = self._share.flatten() > 0
        self._offsets = torch.tensor([noise_offset(member.train.seed) for member in members], device=device)
        has = [[stream in member.streams for stream in streams] for member in members]
        self._has = torch.tensor(has, device=device).unsqueeze(2)  # (K, S, 1)
        places = {stream: [k for k, member in enumerate(members) if stream in member.streams] for stream in streams}
        self._rows = {
            stream: torch.tensor(of_stream, dtype=torch.int64, device=device) for stream, of_stream in places.items()
        }

    def apply(self, batch: HeadBatch, noise: Noise) -> HeadBatch:
        """Return the batch with what each member sees of it."""
        valid = torch.stack([self._axis.of_folds(batch.valid[stream]) for stream in self._streams], dim=1) & self._has
        rows = valid.shape[2]
        drawn = torch.stack([self._drawn(stream, noise, rows) for stream in self._streams], dim=1)  # (K, S, B)
        drawn = torch.where(valid, drawn, _NOT_THERE)
        largest = torch.zeros_like(valid).scatter_(1, drawn.argmax(1, keepdim=True), value=True)
        seen = valid & (largest | (drawn >= self._share))
        return replace(batch, seen={stream: seen[self._rows[stream], s] for s, stream in enumerate(self._streams)})

    def _drawn(self, stream: str, noise: Noise, rows: int) -> Tensor:
        """Return the numbers of one stream in [0, 1), (K, rows)."""
        values = noise.values(f"stream dropout {stream_of(stream)}", 1)
        return values.unfold(0, rows, 1)[self._offsets]
