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
    stream: Stream,
    samples: Sequence[Sample],
    rate_hz: int,
    describe: Callable[[Wave], npt.NDArray[np.floating[Any]] | tuple[npt.NDArray[np.floating[Any]], int]],
) -> Rows:
    """Return the rows of samples that a function describes one by one.

    Args:
        stream: the stream of the rows.
        samples: the samples.
        rate_hz: the rate of the waveforms that the function takes.
        describe: the function: a waveform -> its features (*stream.shape); for a sequence its features and the number
            of its steps before the padding, at least 1.
    """
    rows = Rows.empty_of(stream, len(samples), Status.NO_DETECTION)
    for index, wave in enumerate(waveforms(samples, rate_hz)):
        if wave is None:
            continue
        described = describe(wave)
        if isinstance(described, tuple):
            features, steps = described
            rows.features[index, :steps] = features[:steps]
            if rows.mask is not None and is_sequence(stream.dimensions):
                rows.mask[index, :steps] = Step.OK
        else:
            rows.features[index] = described
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
