"""The extended Geneva minimalistic acoustic parameters of a sound (Eyben et al., IEEE TAC 2016), by openSMILE.

openSMILE is an extra (`pip install 'emofuse[egemaps]'`) under a licence of audEERING for non-commercial use, which is
stated when the stream is first made.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from emofuse.errors import StreamError
from emofuse.media.libraries import import_library
from emofuse.media.spectrogram import Wave, fixed_length
from emofuse.specs.streams import StreamSpecBase
from emofuse.streams.base import VECTOR, Rows, Sample
from emofuse.streams.sounds import rows_of_sounds

LENGTH = 88
_RATE_HZ = 16_000
_LEAST_SAMPLES = 1_600  # openSMILE needs windows of 60 ms: a shorter sound is followed by silence
_LARGEST = 32_767 / 32_768  # openSMILE computes with 16 bits: a value beyond them would change its sign
LICENCE = (
    "the stream 'egemaps' uses openSMILE, whose licence (audEERING Research License) allows non-commercial use alone"
)


class EgemapsSpec(StreamSpecBase):
    """The 88 functionals of eGeMAPS v02, computed by openSMILE from the sound at 16 kHz.

    openSMILE is licensed for non-commercial use alone. The whole sound is seen, up to `seconds`, of which the middle is
    kept; a sound under 0.1 s is followed by silence. Values beyond full scale are clipped, since openSMILE computes
    with 16 bits.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)

    kind: Literal["egemaps"] = "egemaps"
    seconds: float = Field(60.0, ge=0.1, le=600)

    def make(self, device: str) -> EgemapsStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor.

        Raises:
            StreamError: openSMILE is not installed.
        """
        return EgemapsStream(self.seconds)


class EgemapsStream:
    """Waveforms -> the 88 functionals of eGeMAPS v02.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = EgemapsSpec.needs
    flag_names: tuple[str, ...] = ()

    def __init__(self, seconds: float) -> None:
        opensmile = _opensmile()
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
        )
        self._longest = round(seconds * _RATE_HZ)
        self.columns: tuple[str, ...] = tuple(self._smile.feature_names)

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the functionals of n samples.

        Returns:
            features (n, 88) float32; status (n,) uint8, NO_DETECTION without a sound.
        """
        return rows_of_sounds(self, samples, _RATE_HZ, self._describe)

    def close(self) -> None:
        """Do nothing: openSMILE releases its memory after every sound."""

    def _describe(self, wave: Wave) -> npt.NDArray[np.float32]:
        seen = fixed_length(wave, min(max(len(wave), _LEAST_SAMPLES), self._longest))
        table = self._smile.process_signal(np.clip(seen, -1.0, _LARGEST), _RATE_HZ)
        values: npt.NDArray[np.float32] = table.to_numpy(dtype=np.float32)[0]
        return values


@cache
def _opensmile() -> Any:
    """Import the package and state its licence, once in a process.

    Raises:
        StreamError: it is not installed, or cannot be imported.
    """
    try:
        opensmile = import_library("opensmile", extra="egemaps", purpose="streams of eGeMAPS")
    except StreamError as error:
        older = " (pip install 'pyarrow<22' for NumPy 1.26)" if "pyarrow" in str(error) else ""
        raise StreamError(f"{error}{older}. Its licence allows non-commercial use alone") from None
    warnings.warn(LICENCE, stacklevel=2)
    return opensmile
