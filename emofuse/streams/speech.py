"""Features of pretrained encoders of speech: wav2vec 2.0, HuBERT, WavLM and the encoder of Whisper.

A row holds what the plain encoder of transformers computes from the sound at 16 kHz with the model's own preprocessing:
the mean of its vectors over time, mean and deviation, or the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from emofuse.errors import SpecError
from emofuse.media.spectrogram import Wave, fixed_length
from emofuse.specs.streams import StreamSpecBase
from emofuse.specs.weights import Precision, WeightsSpec
from emofuse.streams.base import NEEDS_AUDIO, TIME, VECTOR, Rows, Sample
from emofuse.streams.sounds import rows_of_sounds

if TYPE_CHECKING:
    import torch

    from emofuse.streams.networks.speech_encoders import SpeechEncoder


class SpeechSpec(StreamSpecBase):
    """Features of an encoder of speech (extra `speech`), from the sound at 16 kHz.

    `model` is one of the published encoders that are known by name (`whisper-tiny.en`, `wav2vec2-base`,
    `hubert-base-ls960`, `wavlm-base-plus`, ...). Without it, `config.json` and `preprocessor_config.json` beside the
    file of weights are read, as transformers saves them in a folder.

    `output` is the mean of the vectors over time (`mean`, D values), mean and standard deviation (`mean_std`, 2 * D),
    or the `sequence` of `seconds` with its mask. `layer` is the number of the layer whose output is stored, from 1; the
    last one, after its norm, unless given. Middle layers are often better for emotions.

    A sound longer than `seconds` is cut to its middle. Whisper sees 30 s, silence behind the sound; steps behind the
    end of the sound are neither averaged nor stored.
    """

    needs: ClassVar[frozenset[str]] = NEEDS_AUDIO
    uses_gpu: ClassVar[bool] = True

    kind: Literal["speech"] = "speech"
    model: str | None = None
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    output: Literal["mean", "mean_std", "sequence"] = "mean"
    layer: int | None = Field(None, ge=1)
    seconds: float = Field(30.0, ge=0.1, le=600)
    precision: Precision = "float32"
    dtype: Literal["float16", "float32"] = "float16"

    @classmethod
    def _default_name(cls, data: Mapping[str, Any]) -> str:
        return str(data.get("model") or "speech")

    @model_validator(mode="after")
    def _weights_or_model(self) -> Self:
        if self.model is None and self.weights is None:
            raise ValueError(
                "model or weights must be given: the name of an encoder, or a file with config.json beside it"
            )
        return self

    def weights_wanted(self) -> WeightsSpec:
        """Return the spec's weights, or the registry's default weights of the model."""
        from emofuse.weights import default_weights

        return self.weights or default_weights(self.model or "")

    def make(self, device: str) -> SpeechStream:
        """Return the extractor with its network loaded.

        Raises:
            SpecError: the model or the layer is unknown, or Whisper would see more than 30 s.
            StreamError: transformers is not installed, or the device cannot be used.
            WeightsError: the weights are missing, damaged, or another model's.
        """
        from emofuse.streams.networks.speech_encoders import make_speech_encoder, speech_configuration
        from emofuse.weights import resolve_weights

        if self.model is not None:
            speech_configuration(self.model, None)  # a wrong name is said before weights are looked for
        weights = resolve_weights(self.weights_wanted())
        configuration = speech_configuration(self.model, weights.path)
        return SpeechStream(self, make_speech_encoder(configuration, weights), device)

    def identity_values(self) -> dict[str, Any]:
        """Return the architecture and preprocessing of the encoder."""
        from emofuse.streams.networks.speech_encoders import speech_configuration
        from emofuse.weights import resolve_weights

        path = None if self.model is not None else resolve_weights(self.weights_wanted()).path
        return {"configuration": speech_configuration(self.model, path)}


class SpeechStream:
    """Waveforms -> vectors of an encoder of speech.

    Holds no per-sample state: one instance serves every block of a worker. Sounds pass the network one by one, without
    padding, because padding would change the features of wav2vec 2.0 and its successors.

    Attributes:
        network: the encoder.
        shape: (D,), (2 * D,) or (steps, D).
    """

    dtype = np.dtype(np.float32)
    needs = NEEDS_AUDIO
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __init__(self, spec: SpeechSpec, encoder: SpeechEncoder, device: str) -> None:
        import torch

        from emofuse.streams.networks.classification import to_device
        from emofuse.streams.networks.speech_encoders import RATE_HZ

        self._rate_hz = RATE_HZ
        self._longest = round(spec.seconds * RATE_HZ)
        self._check(spec, encoder)
        self._output, self._layer, self._encoder = spec.output, spec.layer, encoder
        self._dtype = torch.bfloat16 if spec.precision == "bfloat16" else torch.float32
        self.network = to_device(encoder.network, device).to(self._dtype)
        self._device = torch.device(device)
        shapes = {"mean": (encoder.width,), "mean_std": (2 * encoder.width,)}
        self.shape = shapes.get(spec.output, (encoder.steps(self._longest), encoder.width))
        self.dimensions = (TIME, *VECTOR) if spec.output == "sequence" else VECTOR

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the features of n samples.

        Returns:
            features (n, *shape) float32; status (n,) uint8, NO_DETECTION without a sound.
        """
        return rows_of_sounds(self, samples, self._rate_hz, self._describe)

    def close(self) -> None:
        """Do nothing: the garbage collector releases the network."""

    def _describe(self, wave: Wave) -> npt.NDArray[np.float32] | tuple[npt.NDArray[np.float32], int]:
        seen = wave if len(wave) <= self._longest else fixed_length(wave, self._longest)
        vectors = self._vectors(seen)
        if self._output == "sequence":
            return vectors, len(vectors)
        mean = vectors.mean(axis=0, dtype=np.float64)
        parts = [mean] if self._output == "mean" else [mean, vectors.std(axis=0, dtype=np.float64)]
        described: npt.NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
        return described

    def _vectors(self, wave: Wave) -> npt.NDArray[np.float32]:
        """Return the vectors (steps, D) float32 of the chosen layer."""
        import torch

        caught: list[torch.Tensor] = []

        def catch(_module: object, _args: object, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        hook = None if self._layer is None else self._encoder.layers[self._layer - 1].register_forward_hook(catch)
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        try:
            with torch.inference_mode(), exact:
                last = self.network(self._encoder.input(wave).to(self._device, self._dtype)).last_hidden_state
        finally:
            if hook is not None:
                hook.remove()
        chosen = last if self._layer is None else caught[0]
        vectors: npt.NDArray[np.float32] = chosen[0, : self._encoder.steps(len(wave))].float().cpu().numpy()
        return vectors

    def _check(self, spec: SpeechSpec, encoder: SpeechEncoder) -> None:
        faults = []
        if spec.layer is not None and spec.layer > len(encoder.layers):
            faults.append(f"layer: the encoder has {len(encoder.layers)} layers, got {spec.layer}")
        if encoder.longest is not None and self._longest > encoder.longest:
            faults.append(f"seconds: Whisper sees {encoder.longest / self._rate_hz:g} s, got {spec.seconds:g}")
        if faults:
            raise SpecError("speech", faults)
