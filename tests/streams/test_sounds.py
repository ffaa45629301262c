"""Streams of sounds: spectrograms, cepstral coefficients, eGeMAPS, and networks that see spectrograms."""

from __future__ import annotations

import importlib
import sys
import warnings

import numpy as np
import pytest
import torch

from emofuse.errors import SpecError, StreamError
from emofuse.media.spectrogram import fixed_length, log_mel, mel_picture
from emofuse.specs import BackboneSpec, CacheSpec, RandomWeights, digest
from emofuse.specs.audio import MelSettings
from emofuse.status import Status
from emofuse.streams import egemaps, make_stream, stream_identity
from emofuse.streams.base import Sample, SampleBatch, Sound
from emofuse.streams.block_extraction import extract_all
from emofuse.streams.egemaps import EgemapsSpec
from emofuse.streams.mel import MelSpec
from emofuse.streams.mfcc import MfccSpec
from emofuse.streams.networks import spectrogram_pictures
from emofuse.testing import check_stream, example_samples, example_sound

RANDOM = RandomWeights(seed=3)
NETWORK = BackboneSpec(model="squeezenet1_1", weights=RANDOM, input="mel")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def smile():
    """opensmile itself. It cannot be imported where pyarrow asks for another NumPy."""
    return pytest.importorskip("opensmile", reason="the extra egemaps cannot be imported", exc_type=ImportError)


def sample(wave, rate_hz=16_000):
    return Sample(sound=Sound(np.asarray(wave, dtype=np.float32), rate_hz))


KINDS = [MelSpec(seconds=1), MfccSpec(), NETWORK]


# ----- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        MelSpec(),
        MelSpec(seconds=0.5, bands=40, scale="htk", dtype="float16"),
        MfccSpec(),
        MfccSpec(coefficients=13, seconds=1),
        NETWORK,
        NETWORK.model_copy(update={"windows": 4}),
        NETWORK.model_copy(update={"output": "map"}),
    ],
    ids=lambda spec: spec.kind,
)
def test_streams_of_sounds_keep_the_contract_of_a_stream(spec):
    check_stream(spec)


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_a_sample_without_a_sound_has_no_detection(spec):
    stream = make_stream(spec)
    rows = stream.extract([Sample(), sample([]), sample(0.1 * np.ones(4000))])
    assert rows.status.tolist() == [Status.NO_DETECTION, Status.NO_DETECTION, Status.OK]
    assert not rows.features[:2].any()
    assert stream.needs == spec.needs == {"audio"}


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_silence_short_sounds_and_sounds_beyond_full_scale_are_ok(spec):
    sounds = [np.zeros(8000), [0.5], 30 * example_sound(0.5).samples, np.ones(1_000_000)]
    rows = make_stream(spec).extract([sample(wave) for wave in sounds])
    assert (rows.status == Status.OK).all()
    assert np.isfinite(rows.features).all()


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sound_that_is_not_finite_fails_alone_with_its_place(spec, value):
    broken = np.zeros(16_000, np.float32)
    broken[8000] = value
    batch = SampleBatch([sample(broken), sample(example_sound(0.5).samples)])
    rows, reasons = extract_all({"stream": make_stream(spec)}, batch, {})["stream"]
    assert rows.status.tolist() == [Status.FAILED, Status.OK]
    assert reasons == {0: "ValueError: the sound has a value that is not finite, the first at 0.500 s"}


def test_sounds_are_resampled_once_for_all_streams(monkeypatch):
    asked = []
    real = Sound.at
    monkeypatch.setattr(Sound, "at", lambda sound, rate: asked.append(rate) or real(sound, rate))
    batch = SampleBatch([sample(example_sound(0.3, rate_hz=44_100).samples, 44_100)])
    for spec in (MelSpec(), MfccSpec(), NETWORK):
        make_stream(spec).extract(batch)
    assert asked == [16_000]


def test_networks_with_the_same_settings_share_the_pictures_of_spectrograms(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        spectrogram_pictures, "mel_picture", lambda values: drawn.append(values.shape) or mel_picture(values)
    )
    batch = SampleBatch([sample(example_sound(0.3).samples), sample(example_sound(0.2).samples)])
    alone = make_stream(NETWORK).extract(list(batch)).features
    drawn.clear()
    make_stream(NETWORK.model_copy(update={"model": "resnet18"})).extract(batch)
    assert np.array_equal(make_stream(NETWORK).extract(batch).features, alone)
    assert len(drawn) == 2
    make_stream(NETWORK.model_copy(update={"windows": 4})).extract(batch)
    assert len(drawn) > 2


def test_settings_are_part_of_the_identity():
    def identity(spec):
        return digest(stream_identity(spec, CacheSpec(streams=(spec,))))

    specs = [
        MelSpec(),
        MelSpec(bands=40),
        MelSpec(seconds=3),
        MfccSpec(),
        MfccSpec(coefficients=13),
        NETWORK,
        NETWORK.model_copy(update={"mel": MelSettings(bands=40)}),
        NETWORK.model_copy(update={"windows": 2}),
        BackboneSpec(model="squeezenet1_1", weights=RANDOM),
    ]
    assert len({identity(spec) for spec in specs}) == len(specs)
    assert identity(NETWORK) == identity(
        BackboneSpec(model="squeezenet1_1", weights=RANDOM, input="mel", mel=MelSettings())
    )


# ----- mel and mfcc -------------------------------------------------------------------------------


def test_mel_is_the_spectrogram_of_the_middle_as_a_map():
    wave = example_sound(3).samples
    spec = MelSpec(seconds=1)
    stream = make_stream(spec)
    assert (stream.shape, stream.dimensions) == ((1, 64, 101), ("channel", "band", "step"))
    row = stream.extract([sample(wave)]).features[0, 0]
    assert np.array_equal(row, log_mel(wave[16_000:32_000], spec))


def test_mfcc_are_means_and_deviations_of_coefficients_and_slopes():
    stream = make_stream(MfccSpec(coefficients=2))
    assert stream.columns[:4] == ("mfcc_0_mean", "mfcc_1_mean", "mfcc_0_std", "mfcc_1_std")
    assert stream.columns[4:] == ("slope_0_mean", "slope_1_mean", "slope_0_std", "slope_1_std")
    quiet, loud = stream.extract([sample(gain * example_sound(1).samples) for gain in (1, 10)]).features
    assert loud[0] - quiet[0] == pytest.approx(20 * 64 / np.sqrt(64), rel=0.01)  # 20 dB in every band
    assert loud[1:] == pytest.approx(quiet[1:], abs=0.35)
    silence = stream.extract([sample(np.zeros(3000))]).features[0]
    assert silence == pytest.approx([-100 * np.sqrt(64), *[0] * 7], abs=1e-3)


@pytest.mark.parametrize(
    "spec", [MelSpec(bands=300), MfccSpec(bands=300), NETWORK.model_copy(update={"mel": MelSettings(bands=300)})]
)
def test_too_many_bands_are_refused(spec):
    with pytest.raises(
        SpecError, match=r"bands: \d+ of 300 bands hold no frequency of a window of 0\.025 s: use fewer"
    ):
        make_stream(spec)


def test_more_coefficients_than_bands_are_refused():
    with pytest.raises(ValueError, match="coefficients must be at most bands, 10, got 11"):
        MfccSpec(coefficients=11, bands=10)


# ----- networks that see spectrograms -------------------------------------------------------------


def test_a_network_sees_the_picture_of_the_spectrogram():
    wave = fixed_length(example_sound(1.5).samples, 64_000)
    picture = mel_picture(log_mel(wave, MelSettings()))
    from PIL import Image

    square = np.asarray(Image.fromarray(picture).resize((224, 224), Image.Resampling.BILINEAR))
    plain = make_stream(BackboneSpec(model="squeezenet1_1", weights=RANDOM))
    with torch.inference_mode():
        normalised = plain._shared.preset.normalise(torch.from_numpy(square.copy()).permute(2, 0, 1)[None])
        expected = plain.network(normalised.to(memory_format=torch.channels_last)).flatten(1)[0].numpy()
    row = make_stream(NETWORK).extract([sample(example_sound(1.5).samples)]).features[0]
    assert row == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))


def test_windows_are_a_sequence_with_padding_behind_the_sound():
    spec = NETWORK.model_copy(update={"windows": 4})  # of 4 s in all
    stream = make_stream(spec)
    assert (stream.shape, stream.dimensions) == ((4, 512), ("time", "feature"))
    rows = stream.extract([sample(example_sound(2.5).samples), sample(example_sound(0.2).samples), Sample()])
    assert rows.mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert not rows.features[1, 1:].any()
    single = make_stream(NETWORK.model_copy(update={"mel": MelSettings(seconds=1)}))
    first = single.extract([sample(example_sound(2.5).samples[:16_000])]).features[0]
    assert rows.features[0, 0] == pytest.approx(first, rel=1e-3, abs=1e-4 * float(np.abs(first).max()))


def test_settings_of_spectrograms_belong_to_input_mel():
    with pytest.raises(ValueError, match="mel and windows are settings of input: mel"):
        BackboneSpec(model="resnet18", windows=2)
    with pytest.raises(ValueError, match="windows give a sequence of pooled vectors: output must be pooled, got map"):
        BackboneSpec(model="resnet18", input="mel", windows=2, output="map")
    with pytest.raises(ValueError, match=r"windows: each of 1000 parts of 4 s is under window_s"):
        BackboneSpec(model="resnet18", input="mel", windows=1000)


# ----- eGeMAPS ------------------------------------------------------------------------------------


def test_egemaps_are_opensmiles_own_functionals(smile):
    waves = [example_sound(1.2, seed=seed).samples for seed in (0, 1)]
    stream = make_stream(EgemapsSpec())
    rows = stream.extract([sample(wave) for wave in waves])
    own = smile.Smile(feature_set=smile.FeatureSet.eGeMAPSv02, feature_level=smile.FeatureLevel.Functionals)
    assert stream.columns == tuple(own.feature_names)
    for wave, row in zip(waves, rows.features, strict=True):
        assert row == pytest.approx(own.process_signal(wave, 16_000).to_numpy()[0], rel=1e-6)


def test_egemaps_keep_the_contract_of_a_stream(smile):
    check_stream(EgemapsSpec())


def test_egemaps_of_short_silent_and_loud_sounds_are_finite(smile):
    waves = [[0.3], np.zeros(16_000), 3 * example_sound(1).samples]
    rows = make_stream(EgemapsSpec()).extract([sample(wave) for wave in waves])
    assert (rows.status == Status.OK).all()
    assert np.isfinite(rows.features).all()


def test_full_scale_does_not_change_its_sign_in_opensmiles_16_bits(smile):
    time_s = np.arange(16_000) / 16_000
    stream = make_stream(EgemapsSpec())
    below, full = stream.extract([sample(gain * np.sin(2 * np.pi * 200 * time_s)) for gain in (0.9999, 1.0)]).features
    assert full == pytest.approx(below, rel=0.05, abs=0.05)


def test_the_licence_of_opensmile_is_stated_at_its_first_use(smile):
    egemaps._opensmile.cache_clear()
    with pytest.warns(UserWarning, match="'egemaps' uses openSMILE, whose licence .* allows non-commercial use alone"):
        make_stream(EgemapsSpec())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_stream(EgemapsSpec())


def test_a_missing_opensmile_names_the_extra_and_the_licence(monkeypatch):
    egemaps._opensmile.cache_clear()
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(StreamError, match=r"pip install 'emofuse\[egemaps\]'\. Its licence allows non-commercial"):
        make_stream(EgemapsSpec())


def test_an_opensmile_that_needs_another_pyarrow_says_so(monkeypatch):
    egemaps._opensmile.cache_clear()

    def fail(name):
        raise ImportError("pyarrow requires NumPy 2.0 or newer, found 1.26.4")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(
        StreamError, match=r"cannot be loaded: pyarrow requires .* \(pip install 'pyarrow<22' for NumPy"
    ):
        egemaps._opensmile()


# ----- real speech --------------------------------------------------------------------------------


def test_louder_emotions_have_more_energy_in_real_speech(shared_data):
    soundfile = pytest.importorskip("soundfile")
    means = {}
    for emotion in ("02", "05"):  # calm, angry; strong, first sentence and repetition, of four actors
        files = [
            shared_data / "speech" / "ravdess" / f"03-01-{emotion}-02-01-01-{actor:02}.flac" for actor in range(1, 5)
        ]
        sounds = [soundfile.read(path, dtype="float32") for path in files]
        rows = make_stream(MfccSpec()).extract([sample(wave, rate) for wave, rate in sounds])
        means[emotion] = rows.features[:, 0].mean()
    assert means["05"] > means["02"] + 10


def test_example_samples_hold_every_case_of_a_sound():
    sounds = [each.sound for each in example_samples()]
    assert sum(sound is None for sound in sounds) == 2
    assert any(sound is not None and len(sound.samples) == 1 for sound in sounds)
    assert any(sound is not None and not sound.samples.any() for sound in sounds)
    assert any(sound is not None and np.abs(sound.samples).max() > 1 for sound in sounds)
