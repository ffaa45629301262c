"""The waveforms of samples, as all streams of sounds see them.

A sample without a sound, or with a sound of no samples, has no features in these streams: its row is NO_DETECTION, as
that of a picture without a face. (A build gives streams of sound only clips that have one; the others are UNREADABLE
with their reason.) A sound with a value that is not finite is an error, which makes its row FAILED.
Silence, short sounds and values beyond full scale are sounds like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.media.spectrogram import Wave
from emofuse.status import Status, Step
from emofuse.streams.base import Rows, Sample, SampleBatch, Stream, is_sequence

Described = npt.NDArray[np.floating[Any]] | tuple[npt.NDArray[np.floating[Any]], int]
"""The features (*stream.shape) of a sound; for a sequence also the number of steps before its padding, at least 1."""


def waveforms(samples: Sequence[Sample], rate_hz: int) -> list[Wave | None]:
    """Return the waveform (n,) float32 of every sample at a rate, resampled once for all streams of a batch.

    Returns:
        None for a sample without a sound and for a sound of no samples.

    Raises:
        ValueError: a sound has a value that is not finite.
    """
    batch = SampleBatch.of(samples)
    return batch.once(("waveforms", rate_hz), lambda: [_waveform(sample, rate_hz) for sample in batch])


def rows_of_sounds(
    stream: Stream, samples: Sequence[Sample], rate_hz: int, describe: Callable[[Wave], Described]
) -> Rows:
    """Return the rows of samples that a function describes one by one.

    Args:
        stream: the stream of the rows.
        samples: the samples.
        rate_hz: the rate of the waveforms that the function takes.
        describe: the function.
    """
    waves = waveforms(samples, rate_hz)
    return rows_of_described(stream, [None if wave is None else describe(wave) for wave in waves])


def rows_of_described(stream: Stream, described: Sequence[Described | None]) -> Rows:
    """Return the rows of samples that are described already, None for one without a sound."""
    rows = Rows.empty_of(stream, len(described), Status.NO_DETECTION)
    for index, each in enumerate(described):
        if each is None:
            continue
        if isinstance(each, tuple):
            features, steps = each
            rows.features[index, :steps] = features[:steps]
            if rows.mask is not None and is_sequence(stream.dimensions):
                rows.mask[index, :steps] = Step.OK
        else:
            rows.features[index] = each
        rows.status[index] = Status.OK
    return rows


def _waveform(sample: Sample, rate_hz: int) -> Wave | None:
    if sample.sound is None or not len(sample.sound.samples):
        return None
    if not np.isfinite(sample.sound.samples).all():
        place = int(np.flatnonzero(~np.isfinite(sample.sound.samples))[0]) / sample.sound.rate_hz
        raise ValueError(f"the sound has a value that is not finite, the first at {place:.3f} s")
    wave = sample.sound.at(rate_hz).samples
    return wave if len(wave) else None
