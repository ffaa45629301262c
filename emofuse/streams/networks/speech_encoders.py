"""Encoders of speech from transformers: wav2vec 2.0, HuBERT, WavLM and the encoder of Whisper.

transformers is an extra. It is imported when a stream is made, and downloads nothing here: weights come from
`emofuse.weights`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from emofuse.errors import SpecError, StreamError, WeightsError, did_you_mean
from emofuse.media.libraries import import_library
from emofuse.media.spectrogram import Wave
from emofuse.streams.networks.random_weights import seeded
from emofuse.streams.networks.speech_models import RATE_HZ, SPEECH_MODELS
from emofuse.weights import ResolvedWeights, load_checkpoint

_FAMILIES = {
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert": ("HubertConfig", "HubertModel"),
    "wavlm": ("WavLMConfig", "WavLMModel"),
    "whisper": ("WhisperConfig", ""),
}
_PREFIXES = ("", "encoder.", "model.encoder.", "wav2vec2.", "hubert.", "wavlm.")  # of the encoder in published files
_FORMER_NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
_NOT_STRUCTURE = ("_name_or_path", "architectures", "torch_dtype", "dtype", "transformers_version")
_NORM_EPSILON = 1e-7  # that of transformers' feature extractor
_LEAST_SAMPLES = 400  # the receptive field of the first layers
_WHISPER_STEP = 320  # samples


class SpeechEncoder(Protocol):
    """A network that turns one waveform at 16 kHz into a sequence of vectors.

    Attributes:
        network: the network.
        layers: its layers, of which one may be the output.
        width: the width of the vectors.
        longest: the number of samples that it sees at most; None without a limit.
    """

    network: nn.Module
    layers: nn.ModuleList
    width: int
    longest: int | None

    def steps(self, samples: int) -> int:
        """Return the number of vectors of a waveform of this length."""
        ...

    def input(self, wave: Wave) -> torch.Tensor:
        """Return what the network takes for a waveform, with a batch axis of 1."""
        ...


def speech_configuration(model: str | None, weights: Path | None) -> dict[str, Any]:
    """Return the architecture and preprocessing of an encoder, as plain JSON.

    Args:
        model: a name of `SPEECH_MODELS`; None reads `config.json`, and `preprocessor_config.json` if there is one, from
            the folder of the weights.
        weights: the file of the weights; None if they are random.

    Raises:
        SpecError: the name is unknown, or there is neither a name nor a `config.json` beside the weights.
        StreamError: `config.json` is damaged, or of another kind of network.
    """
    if model is not None:
        if model not in SPEECH_MODELS:
            hint = did_you_mean(model, SPEECH_MODELS) or f", expected one of {', '.join(SPEECH_MODELS)}"
            raise SpecError("speech", [f"model: {model!r} is no encoder that is known by name{hint}"])
        return dict(SPEECH_MODELS[model])
    path = None if weights is None else weights.parent / "config.json"
    if path is None or not path.is_file():
        where = "" if path is None else f" There is no {path}."
        names = ", ".join(SPEECH_MODELS)
        raise SpecError(
            "speech", [f"model: name one of {names}, or put config.json beside the file of weights.{where}"]
        )
    config = {name: value for name, value in _read_json(path).items() if name not in _NOT_STRUCTURE}
    if config.get("model_type") not in _FAMILIES:
        found = config.get("model_type")
        raise StreamError(f"{path}: model_type is {found!r}, expected one of {', '.join(_FAMILIES)}")
    preprocessor = path.with_name("preprocessor_config.json")
    if config["model_type"] != "whisper":
        config["do_normalize"] = bool(_read_json(preprocessor)["do_normalize"]) if preprocessor.is_file() else True
    return config


def make_speech_encoder(configuration: Mapping[str, Any], weights: ResolvedWeights) -> SpeechEncoder:
    """Make an encoder in evaluation mode, on the CPU.

    Args:
        configuration: its architecture and preprocessing, see `speech_configuration`.
        weights: its weights. Random ones are transformers' own initialisation, seeded.

    Raises:
        StreamError: transformers is not installed, or refuses the architecture.
        WeightsError: the file lacks tensors of the encoder, or has others.
    """
    transformers = import_library("transformers", extra="speech", purpose="streams of speech")
    family = configuration["model_type"]
    options = {name: value for name, value in configuration.items() if name not in ("model_type", "do_normalize")}
    config_name, model_name = _FAMILIES[family]
    try:
        config = getattr(transformers, config_name)(**options)
        with seeded(weights.seed or 0):
            network = _whisper_encoder(config) if family == "whisper" else getattr(transformers, model_name)(config)
    except (TypeError, ValueError) as error:
        raise StreamError(f"transformers makes no {family} encoder of this configuration: {error}") from None
    if weights.path is not None:
        _load(network, weights.path, family)
    network.eval()
    if family == "whisper":
        return _Whisper(transformers, network, config)
    return _WaveEncoder(network, config, do_normalize=bool(configuration["do_normalize"]))


def encoder_outputs(
    encoder: SpeechEncoder, taken: torch.Tensor, layers: Collection[int | None]
) -> dict[int | None, torch.Tensor]:
    """Run an encoder once and return the outputs of layers, (1, steps, D) each.

    Args:
        encoder: the encoder.
        taken: what its network takes, see `SpeechEncoder.input`.
        layers: the numbers of the layers, from 1; None for the output of the network, after its last norm.
    """
    caught: dict[int | None, torch.Tensor] = {}

    def catch(layer: int, output: Any) -> None:
        caught[layer] = output[0] if isinstance(output, tuple) else output

    with ExitStack() as opened:
        for layer in layers:
            if layer is not None:
                hook = encoder.layers[layer - 1].register_forward_hook(
                    lambda _module, _args, output, layer=layer: catch(layer, output)
                )
                opened.callback(hook.remove)
        caught[None] = encoder.network(taken).last_hidden_state
    return caught


class LayersGraph(nn.Module):
    """An encoder that returns the outputs of layers in their order, as `compile_network` wants them."""

    def __init__(self, encoder: SpeechEncoder, layers: Sequence[int | None]) -> None:
        super().__init__()
        self.network = encoder.network
        self._encoder, self._layers = encoder, layers

    def forward(self, taken: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of the layers."""
        outputs = encoder_outputs(self._encoder, taken, self._layers)
        return tuple(outputs[layer] for layer in self._layers)


class _WaveEncoder:
    """wav2vec 2.0, HuBERT or WavLM: convolutions over the waveform, then a transformer."""

    def __init__(self, network: Any, config: Any, *, do_normalize: bool) -> None:
        self.network: nn.Module = network
        self.layers: nn.ModuleList = network.encoder.layers
        self.width = int(config.hidden_size)
        self.longest: int | None = None
        self._convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self._normalise = do_normalize

    def steps(self, samples: int) -> int:
        """Return the number of vectors of a waveform of this length."""
        length = max(samples, _LEAST_SAMPLES)
        for kernel, stride in self._convolutions:
            length = (length - kernel) // stride + 1
        return length

    def input(self, wave: Wave) -> torch.Tensor:
        """Return the waveform (1, n) float32, n >= 400, with mean 0 and variance 1 if the model wants it."""
        values = wave.astype(np.float64)
        if self._normalise:
            values = (values - values.mean()) / np.sqrt(values.var() + _NORM_EPSILON)
        padded = np.pad(values, (0, max(0, _LEAST_SAMPLES - len(values))))
        return torch.from_numpy(padded.astype(np.float32))[None]


class _Whisper:
    """The encoder of Whisper: it sees 30 s of log-mel spectrogram, silence behind the sound."""

    def __init__(self, transformers: ModuleType, network: Any, config: Any) -> None:
        self.network: nn.Module = network
        self.layers: nn.ModuleList = network.layers
        self.width = int(config.d_model)
        self._most = int(config.max_source_positions)
        self.longest: int | None = self._most * _WHISPER_STEP
        seconds = self.longest // RATE_HZ
        self._extractor = transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=seconds)

    def steps(self, samples: int) -> int:
        """Return the number of vectors that begin within a waveform of this length."""
        return min(self._most, max(1, -(-samples // _WHISPER_STEP)))

    def input(self, wave: Wave) -> torch.Tensor:
        """Return the log-mel spectrogram (1, bands, 2 * steps) float32 of Whisper's own feature extractor."""
        extracted = self._extractor(wave, sampling_rate=RATE_HZ, return_tensors="np")
        return torch.from_numpy(np.asarray(extracted["input_features"], dtype=np.float32))


def _whisper_encoder(config: Any) -> Any:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder(config)


def _load(network: nn.Module, path: Path, family: str) -> None:
    """Load the tensors of the encoder; those of decoders and classifiers in the file are left out."""
    state = {_present_name(name): tensor for name, tensor in load_checkpoint(path).items()}
    wanted = set(network.state_dict())
    prefix = max(_PREFIXES, key=lambda each: sum(each + name in state for name in wanted))
    lacking = sorted(name for name in wanted if prefix + name not in state)
    if lacking:
        names = ", ".join(lacking[:3])
        raise WeightsError(
            f"{path} holds no weights of this {family} encoder: {len(lacking)} of {len(wanted)} tensors are missing, "
            f"such as {names}"
        )
    try:
        network.load_state_dict({name: state[prefix + name].float() for name in wanted})
    except RuntimeError as error:
        faults = [line.strip()[:160] for line in str(error).splitlines()]
        raise WeightsError(f"{path} holds no weights of this {family} encoder: {' | '.join(faults[:4])}") from None


def _present_name(name: str) -> str:
    """Return the name that torch gives today to a tensor of a weight norm."""
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_FORMER_NAMES[last]}" if last in _FORMER_NAMES else name


@lru_cache(maxsize=16)
def _parsed(text: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text)
    return values


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(_parsed(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StreamError(f"{path} cannot be read as JSON: {error}") from None
