"""Features of pretrained encoders of speech: wav2vec 2.0, HuBERT, WavLM and the encoder of Whisper.

A row holds what the plain encoder of transformers computes from the sound at 16 kHz with the model's own preprocessing:
the mean of its vectors over time, mean and deviation, or the sequence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from emofuse.errors import SpecError
from emofuse.media.spectrogram import Wave, fixed_length
from emofuse.specs.base import canonical_json
from emofuse.specs.streams import StreamSpecBase
from emofuse.specs.weights import Precision, WeightsSpec
from emofuse.streams.base import NEEDS_AUDIO, TIME, VECTOR, Rows, Sample, SampleBatch
from emofuse.streams.networks.speech_models import RATE_HZ
from emofuse.streams.runtimes import TORCH, ConversionError, openvino_record, present_runtimes
from emofuse.streams.shared_networks import shared_network
from emofuse.streams.sounds import Described, rows_of_described, waveforms

if TYPE_CHECKING:
    from emofuse.streams.networks.running import CompiledNetwork
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
        identity = ("speech", canonical_json(configuration), weights.sha256, weights.seed, self.precision, device)
        encoder = shared_network(
            identity,
            lambda: SharedEncoder(
                make_speech_encoder(configuration, weights), device, self.precision, self.model or "of speech"
            ),
        )
        return SpeechStream(self, encoder)

    def identity_values(self) -> dict[str, Any]:
        """Return the architecture and preprocessing of the encoder."""
        from emofuse.streams.networks.speech_encoders import speech_configuration
        from emofuse.weights import resolve_weights

        path = None if self.model is not None else resolve_weights(self.weights_wanted()).path
        return {"configuration": speech_configuration(self.model, path)}


_CHECKED = (RATE_HZ, RATE_HZ // 3)
"""The numbers of samples on which a compiled encoder is held to PyTorch's."""


@dataclass(frozen=True)
class SpeechOutput:
    """What a stream stores of an encoder: the output of a layer, None for the last one after its norm, and its form."""

    layer: int | None
    form: Literal["mean", "mean_std", "sequence"]


class SharedEncoder:
    """An encoder on its device, which runs once on each sound for all streams that store outputs of it.

    Sounds pass the network one by one, without padding, because padding would change the features of wav2vec 2.0 and
    its successors.

    Attributes:
        encoder: the encoder.
        network: its network.
        runtime: what computes it: `torch`, or `openvino` with its version.
    """

    def __init__(self, encoder: SpeechEncoder, device: str, precision: Precision, name: str = "of speech") -> None:
        import torch

        from emofuse.streams.networks.classification import to_device

        self.encoder = encoder
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._device = torch.device(device)
        self.network = to_device(encoder.network, device).to(self._dtype)
        self._asked: dict[int, set[SpeechOutput]] = {}  # longest number of samples -> what streams store
        self._compiled: dict[frozenset[int | None], CompiledNetwork] = {}
        self.runtime = TORCH
        runtimes = present_runtimes()
        self._threads = runtimes.threads
        runtimes.register(name, self._compile)

    def ask(self, output: SpeechOutput, longest: int) -> None:
        """Note that a stream stores an output of sounds that are cut to a number of samples."""
        self._asked.setdefault(longest, set()).add(output)

    def describe(self, samples: Sequence[Sample], longest: int) -> Mapping[SpeechOutput, Sequence[Described | None]]:
        """Return every output that streams asked for, of every sample; None for a sample without a sound."""
        batch = SampleBatch.of(samples)
        return batch.once((self, longest), lambda: self._describe_all(batch, longest))

    def _describe_all(self, batch: SampleBatch, longest: int) -> Mapping[SpeechOutput, Sequence[Described | None]]:
        asked = self._asked[longest]
        described: dict[SpeechOutput, list[Described | None]] = {output: [] for output in asked}
        for wave in waveforms(batch, RATE_HZ):
            vectors = {} if wave is None else self._vectors(wave, longest, {output.layer for output in asked})
            for output in asked:
                described[output].append(_described(vectors[output.layer], output.form) if vectors else None)
        return described

    def _vectors(
        self, wave: Wave, longest: int, layers: Collection[int | None]
    ) -> dict[int | None, npt.NDArray[np.float32]]:
        """Return the vectors (steps, D) float32 of some layers."""
        import torch

        from emofuse.streams.networks.speech_encoders import encoder_outputs

        seen = wave if len(wave) <= longest else fixed_length(wave, longest)
        taken = self.encoder.input(seen)
        steps = self.encoder.steps(len(seen))
        if self.runtime != TORCH:
            outputs = self._compiled[frozenset(layers)](taken.numpy())
            return {layer: output[0, :steps] for layer, output in zip(_ordered(layers), outputs, strict=True)}
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            tensors = encoder_outputs(self.encoder, taken.to(self._device, self._dtype), layers)
        return {layer: tensors[layer][0, :steps].float().cpu().numpy() for layer in layers}

    def _compile(self) -> None:
        """Compile the encoder for each set of layers that streams store together, for sounds of all lengths.

        Raises:
            ConversionError: it cannot be compiled.
        """
        import torch

        from emofuse.streams.networks.compiled import compile_network
        from emofuse.streams.networks.speech_encoders import LayersGraph

        if self._dtype != torch.float32:
            raise ConversionError("precision bfloat16 is that of PyTorch, whose sums OpenVINO does not repeat")
        sound = np.random.default_rng(0).normal(size=RATE_HZ).astype(np.float32)
        examples = [self.encoder.input(sound[:samples]) for samples in _CHECKED]
        dynamic = (1,) if examples[0].ndim == 2 else ()
        for layers in {frozenset(output.layer for output in asked) for asked in self._asked.values()}:
            graph = LayersGraph(self.encoder, _ordered(layers))
            self._compiled[layers] = compile_network(graph, examples, dynamic=dynamic, threads=self._threads)
        self.runtime = openvino_record()


def _ordered(layers: Collection[int | None]) -> list[int | None]:
    """Return layers in the order in which a compiled encoder gives them, the last one of the network in front."""
    return sorted(layers, key=lambda layer: layer or 0)


def _described(vectors: npt.NDArray[np.float32], form: Literal["mean", "mean_std", "sequence"]) -> Described:
    if form == "sequence":
        return vectors, len(vectors)
    mean = vectors.mean(axis=0, dtype=np.float64)
    parts = [mean] if form == "mean" else [mean, vectors.std(axis=0, dtype=np.float64)]
    described: npt.NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return described


class SpeechStream:
    """Waveforms -> vectors of an encoder of speech.

    Holds no per-sample state: one instance serves every block of a worker.

    Attributes:
        network: the encoder.
        shape: (D,), (2 * D,) or (steps, D).
    """

    dtype = np.dtype(np.float32)
    needs = NEEDS_AUDIO
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __init__(self, spec: SpeechSpec, shared: SharedEncoder) -> None:
        self._shared = shared
        self._longest = round(spec.seconds * RATE_HZ)
        self._check(spec, shared.encoder)
        self._stored = SpeechOutput(spec.layer, spec.output)
        shared.ask(self._stored, self._longest)
        self.network = shared.network
        width, steps = shared.encoder.width, shared.encoder.steps(self._longest)
        self.shape = {"mean": (width,), "mean_std": (2 * width,), "sequence": (steps, width)}[spec.output]
        self.dimensions = (TIME, *VECTOR) if spec.output == "sequence" else VECTOR

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the features of n samples.

        Returns:
            features (n, *shape) float32; status (n,) uint8, NO_DETECTION without a sound.
        """
        return rows_of_described(self, self._shared.describe(samples, self._longest)[self._stored])

    @property
    def runtime(self) -> str:
        """What computes the encoder: `torch`, or `openvino` with its version."""
        return self._shared.runtime

    def close(self) -> None:
        """Do nothing: the garbage collector releases the network."""

    def _check(self, spec: SpeechSpec, encoder: SpeechEncoder) -> None:
        faults = []
        if spec.layer is not None and spec.layer > len(encoder.layers):
            faults.append(f"layer: the encoder has {len(encoder.layers)} layers, got {spec.layer}")
        if encoder.longest is not None and self._longest > encoder.longest:
            faults.append(f"seconds: Whisper sees {encoder.longest / RATE_HZ:g} s, got {spec.seconds:g}")
        if faults:
            raise SpecError("speech", faults)
