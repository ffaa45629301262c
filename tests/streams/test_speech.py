"""Features of speech encoders are those of transformers' own forward pass with its own preprocessing."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from emofuse.errors import SpecError, StreamError, WeightsError
from emofuse.specs import CacheSpec, FileWeights, RandomWeights, digest
from emofuse.status import Status
from emofuse.streams import make_stream, stream_identity
from emofuse.streams.base import Sample, Sound
from emofuse.streams.networks.random_weights import seeded
from emofuse.streams.networks.speech_encoders import speech_configuration
from emofuse.streams.networks.speech_models import SPEECH_MODELS
from emofuse.streams.speech import SpeechSpec
from emofuse.testing import check_stream, example_sound
from emofuse.weights import import_weights

RANDOM = RandomWeights(seed=3)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="the extra speech is not installed")


def sample(seconds, seed=0, rate_hz=16_000):
    return Sample(sound=example_sound(seconds, seed=seed, rate_hz=rate_hz))


def close(expected):
    return pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))


@pytest.fixture
def small(transformers, tmp_path):
    """Makes a small model of a family with random weights, saved in a folder as transformers saves it."""

    def _small(family, *, do_normalize=True, **options):
        names = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
        with seeded(1):
            config = getattr(transformers, f"{names[family]}Config")(**{**SIZES, **options})
            network = getattr(transformers, f"{names[family]}Model")(config).eval()
        network.save_pretrained(tmp_path / family)
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
        extractor.save_pretrained(tmp_path / family)
        return network, extractor, tmp_path / family / "model.safetensors"

    return _small


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("wav2vec2", {}),
        ("wav2vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
        ("hubert", {}),
        ("wavlm", {"do_normalize": False}),
    ],
)
def test_encoders_of_waveforms_give_the_librarys_own_forward_pass(small, family, options):
    network, extractor, path = small(family, **options)
    spec = SpeechSpec(weights=FileWeights(path=path), output="mean_std")
    samples = [sample(0.7), sample(0.4, seed=1)]
    rows = make_stream(spec).extract(samples)
    second = make_stream(spec.model_copy(update={"layer": 2, "output": "mean"})).extract(samples)
    for each, row, middle in zip(samples, rows.features, second.features, strict=True):
        values = extractor(each.sound.samples, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.inference_mode():
            output = network(values, output_hidden_states=True)
        vectors = output.last_hidden_state[0].numpy()
        assert row == close(np.concatenate([vectors.mean(axis=0), vectors.std(axis=0)]))
        assert middle == close(output.hidden_states[2][0].numpy().mean(axis=0))


def test_real_weights_of_whisper_give_the_librarys_own_forward_pass(transformers, shared_data):
    path = shared_data / "models" / "whisper_tiny_en_encoder_fp16.safetensors"
    state = __import__("safetensors.torch").torch.load_file(path)
    config = transformers.WhisperConfig(
        **{k: v for k, v in SPEECH_MODELS["whisper-tiny.en"].items() if k != "model_type"}
    )
    encoder = transformers.WhisperModel(config).encoder.eval()
    encoder.load_state_dict({name.removeprefix("encoder."): value.float() for name, value in state.items()})
    spoken = sample(1.1)
    spec = SpeechSpec(model="whisper-tiny.en", weights=FileWeights(path=path))
    features = transformers.WhisperFeatureExtractor()(spoken.sound.samples, sampling_rate=16_000, return_tensors="pt")
    caught = []
    encoder.layers[2].register_forward_hook(
        lambda _, args, out: caught.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.inference_mode():
        last = encoder(features.input_features).last_hidden_state[0, :55].numpy()
    assert make_stream(spec).extract([spoken]).features[0] == close(last.mean(axis=0))
    third = make_stream(spec.model_copy(update={"layer": 3})).extract([spoken]).features[0]
    assert third == close(caught[0][0, :55].numpy().mean(axis=0))


def test_whisper_tells_real_angry_from_calm_speech(transformers, shared_data):
    soundfile = pytest.importorskip("soundfile")
    path = shared_data / "models" / "whisper_tiny_en_encoder_fp16.safetensors"
    stream = make_stream(SpeechSpec(model="whisper-tiny.en", weights=FileWeights(path=path), layer=3))

    def rows(emotion):
        names = [f"03-01-{emotion}-02-01-01-{actor:02}.flac" for actor in (1, 2, 3)]
        sounds = [soundfile.read(shared_data / "speech" / "ravdess" / name, dtype="float32") for name in names]
        return stream.extract([Sample(sound=Sound(wave, rate)) for wave, rate in sounds]).features

    calm, angry = rows("02"), rows("05")
    within = np.linalg.norm(calm - calm.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(calm.mean(axis=0) - angry.mean(axis=0)) > within


def test_a_sequence_has_a_step_every_20_ms_and_a_mask(small):
    _, _, path = small("wav2vec2")
    stream = make_stream(SpeechSpec(weights=FileWeights(path=path), output="sequence", seconds=1))
    rows = stream.extract([sample(0.5), sample(3.0), Sample()])
    assert (stream.shape, stream.dimensions) == ((49, 32), ("time", "feature"))
    assert (rows.mask == 1).sum(axis=1).tolist() == [24, 49, 0]
    assert rows.status.tolist() == [Status.OK, Status.OK, Status.NO_DETECTION]
    middle = Sample(sound=Sound(sample(3.0).sound.samples[16_000:32_000], 16_000))
    assert np.array_equal(rows.features[1], stream.extract([middle]).features[0])


def test_the_steps_of_whisper_end_with_the_sound(transformers):
    spec = SpeechSpec(model="whisper-tiny.en", weights=RANDOM, output="sequence", seconds=2)
    rows = make_stream(spec).extract([sample(0.5)])
    assert rows.features.shape == (1, 100, 384)
    assert (rows.mask == 1).sum() == 25


@pytest.mark.parametrize("wave", [np.zeros(8000), [0.5], np.ones(300), 20 * example_sound(0.3).samples], ids=range(4))
def test_silent_short_and_loud_sounds_have_features(small, wave):
    _, _, path = small("hubert")
    sounds = [Sample(sound=Sound(np.asarray(wave, np.float32), 16_000))]
    rows = make_stream(SpeechSpec(weights=FileWeights(path=path), output="mean_std")).extract(sounds)
    assert rows.status.tolist() == [Status.OK]
    assert np.isfinite(rows.features).all()


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
@pytest.mark.parametrize("output", ["mean", "sequence"])
def test_encoders_keep_the_contract_of_a_stream(small, family, output):
    _, _, path = small(family)
    check_stream(SpeechSpec(weights=FileWeights(path=path), output=output, seconds=2))


def test_random_weights_follow_the_seed(transformers):
    specs = [SpeechSpec(model="wav2vec2-base", weights=RandomWeights(seed=seed), layer=1) for seed in (1, 1, 2)]
    first, again, other = (make_stream(spec).extract([sample(0.3)]).features for spec in specs)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, rtol=0.1)


# ----- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "wav2vec2.", "module."])
def test_files_of_whole_models_and_former_names_are_understood(small, tmp_path, prefix):
    network, _, path = small("wav2vec2")
    former = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {"lm_head.weight": torch.zeros(3, 32)}
    for name, tensor in network.state_dict().items():
        stem, _, last = name.partition(".parametrizations")
        state[prefix + (f"{stem}.{former['parametrizations' + last]}" if last else name)] = tensor
    assert any(name.endswith("weight_g") for name in state)
    torch.save(state, path.with_name("other.bin"))
    specs = [SpeechSpec(weights=FileWeights(path=each)) for each in (path, path.with_name("other.bin"))]
    one, other = (make_stream(spec).extract([sample(0.4)]).features for spec in specs)
    assert np.array_equal(one, other)


def test_a_file_that_lacks_tensors_is_refused(small):
    network, _, path = small("hubert")
    state = {name: value for name, value in network.state_dict().items() if "layers.1" not in name}
    torch.save(state, path.with_name("part.bin"))
    with pytest.raises(WeightsError, match=r"part\.bin holds no weights of this hubert encoder: 17 of \d+ .*layers\.1"):
        make_stream(SpeechSpec(weights=FileWeights(path=path.with_name("part.bin"))))


def test_a_file_of_another_size_is_refused(small):
    _, _, path = small("hubert")
    config = json.loads(path.with_name("config.json").read_text())
    path.with_name("config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(WeightsError, match=r"holds no weights of this hubert encoder: .*size mismatch"):
        make_stream(SpeechSpec(weights=FileWeights(path=path)))


def test_the_configuration_is_part_of_the_identity(small):
    def identity(**fields):
        spec = SpeechSpec(**{"model": "wav2vec2-base", "weights": RANDOM, **fields})
        return digest(stream_identity(spec, CacheSpec(streams=(spec,))))

    _, _, path = small("wav2vec2")
    beside = identity(model=None, weights=FileWeights(path=path))
    preprocessor = path.with_name("preprocessor_config.json")
    preprocessor.write_text(json.dumps(json.loads(preprocessor.read_text()) | {"do_normalize": False}))
    changed = identity(model=None, weights=FileWeights(path=path))
    named = [
        identity(),
        identity(layer=3),
        identity(output="mean_std"),
        identity(seconds=5),
        identity(model="hubert-base-ls960"),
    ]
    assert len({beside, changed, *named}) == 7


def test_the_registry_has_weights_of_encoders_by_their_name(transformers, shared_data):
    with pytest.raises(WeightsError, match=r"emofuse weights fetch whisper-tiny\.en"):
        make_stream(SpeechSpec(model="whisper-tiny.en"))
    import_weights(shared_data / "models" / "whisper_tiny_en_encoder_fp16.safetensors", "whisper-tiny.en")
    assert make_stream(SpeechSpec(model="whisper-tiny.en")).shape == (384,)
    with pytest.raises(WeightsError, match="model 'wavlm-large' has no default weights in the registry"):
        make_stream(SpeechSpec(model="wavlm-large"))
    with pytest.raises(ValueError, match="model or weights must be given"):
        SpeechSpec()


# ----- faults -------------------------------------------------------------------------------------


def test_an_unknown_model_gets_a_hint():
    with pytest.raises(
        SpecError, match=r"'wav2vec2-bas' is no encoder that is known by name, did you mean 'wav2vec2-base"
    ):
        make_stream(SpeechSpec(model="wav2vec2-bas", weights=RANDOM))


def test_without_a_name_or_a_configuration_the_error_names_both(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.bin")
    with pytest.raises(SpecError, match=r"name one of whisper-tiny, .* or put config\.json beside the file of weights"):
        make_stream(SpeechSpec(weights=FileWeights(path=tmp_path / "model.bin")))
    with pytest.raises(SpecError, match=r"put config\.json beside the file of weights"):
        make_stream(SpeechSpec(weights=RANDOM))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json cannot be read as JSON"),
        ('{"model_type": "bert"}', "model_type is 'bert', expected one of wav2vec2, hubert, wavlm, whisper"),
    ],
)
def test_a_faulty_configuration_is_named(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(StreamError, match=message):
        speech_configuration(None, tmp_path / "model.bin")


def test_settings_that_the_encoder_does_not_have_are_named_together(transformers):
    spec = SpeechSpec(model="whisper-tiny.en", weights=RANDOM, layer=5, seconds=40)
    with pytest.raises(
        SpecError, match=r"layer: the encoder has 4 layers, got 5 \| seconds: Whisper sees 30 s, got 40"
    ):
        make_stream(spec)


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        StreamError, match=r"need transformers, which is not installed: pip install 'emofuse\[speech\]'"
    ):
        make_stream(SpeechSpec(model="wav2vec2-base", weights=RANDOM))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", ["wav2vec2-base", "whisper-tiny.en"])
def test_cuda_agrees_with_the_cpu(transformers, model):
    spec = SpeechSpec(model=model, weights=RANDOM)
    cpu, cuda = (make_stream(spec, device=device).extract([sample(0.7)]).features for device in ("cpu", "cuda"))
    assert cuda == close(cpu)
    check_stream(spec, device="cuda")
