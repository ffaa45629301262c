"""Streams of sounds in a cache are what they are of each sound, in views too, and the pipelines of clips run whole."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
from clip_corpus import ROWS, SILENT, read_corpus, write_corpus
from media_files import frame, write_clip, write_sound

from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.ravdess import RavdessSpec
from emofuse.datasets.sources import Source
from emofuse.extraction import BuildOptions, build_cache
from emofuse.media.audio import read_sound
from emofuse.media.sound_views import apply_sound_view, draw_sound_view
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.specs import (
    AugmentSpec,
    BackboneSpec,
    CacheSpec,
    ClipSpec,
    RandomWeights,
    SoundAugmentSpec,
    read_pipeline_spec,
)
from emofuse.specs.audio import MelSettings
from emofuse.status import Status
from emofuse.streams import make_stream
from emofuse.streams.base import Sample
from emofuse.streams.mel import MelSpec
from emofuse.streams.mfcc import MfccSpec
from emofuse.upkeep.sample import compare_sample
from emofuse.upkeep.verify import verify_cache
from emofuse.weights import import_weights

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

RANDOM = RandomWeights(seed=1)
STREAMS = (
    MelSpec(seconds=0.5),
    MfccSpec(),
    BackboneSpec(
        model="squeezenet1_1", weights=RANDOM, input="mel", windows=2, mel=MelSettings(seconds=0.5), dtype="float32"
    ),
)
AUGMENT = AugmentSpec(sound=SoundAugmentSpec(shift_s=0.05, noise=1, snr_db=10))
SPEC = CacheSpec(block_rows=12, views=2, augment=AUGMENT, streams=STREAMS)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return read_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="module")
def cache(tmp_path_factory, manifest):
    path = tmp_path_factory.mktemp("cache") / "features.zarr"
    build_cache(path, manifest, SPEC, BuildOptions(workers=0, device="cpu"))
    return path


def sound_of(manifest, row):
    table = manifest.table
    path, apart = (table[column][row] for column in ("path", "audio_path"))
    start_s, end_s = (table[column][row] for column in ("start_s", "end_s"))
    root = manifest.root
    return read_sound(Source(root / path, None, None if apart is None else root / apart, start_s, end_s))


@pytest.mark.parametrize("spec", STREAMS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("view", [0, 1])
def test_cached_rows_are_those_of_the_sound_in_the_draw_of_the_view(cache, manifest, spec, view):
    cached, stream = open_cache(cache).streams[spec.name], make_stream(spec)
    rows = [0, 9, 20]
    for row in rows:
        sound = sound_of(manifest, row)
        if view:
            drawn = draw_sound_view(AUGMENT.sound, AUGMENT.seed, manifest.table["sample_id"][row], view)
            sound = apply_sound_view(sound, drawn)
        expected = stream.extract([Sample(sound=sound)]).features[0]
        found = cached.read(view=view)[0][row]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4 * float(np.abs(expected).max()))


def test_views_of_sounds_differ_from_the_sounds(cache):
    mel = open_cache(cache).streams["mel"]
    first, second = (mel.read(view=view)[0] for view in (0, 1))
    ok = mel.status[:, 0] == Status.OK
    assert ok.sum() == ROWS - 2
    assert (np.abs(first[ok] - second[ok]).max(axis=(1, 2, 3)) > 1).all()


def test_a_clip_without_a_sound_is_unreadable_in_streams_of_sound(cache):
    for stream in open_cache(cache).streams.values():
        assert stream.status[SILENT, 0] == Status.UNREADABLE


def test_a_cache_of_sounds_is_verified_and_extracted_again_alike(cache):
    assert verify_cache(cache).faults == ()
    assert compare_sample(cache, ROWS, device="cpu", streams=STREAMS).rows == ROWS


# ----- pipelines ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cremad(tmp_path_factory):
    """36 clips with the names and folders of CREMA-D: six emotions by six actors."""
    root = tmp_path_factory.mktemp("CREMA-D")
    (root / "VideoFlash").mkdir()
    (root / "AudioWAV").mkdir()
    for index, emotion in enumerate(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")):
        clip = write_clip(
            root / f"{emotion}.mp4", frames=10, picture=lambda number, *size, index=index: frame(8 * index, *size)
        )
        sound = write_sound(root / f"{emotion}.wav", seconds=0.3 + 0.1 * index)
        for actor in range(1001, 1007):
            name = f"{actor}_DFA_{emotion}_XX"
            shutil.copy(clip, root / "VideoFlash" / f"{name}.mp4")
            shutil.copy(sound, root / "AudioWAV" / f"{name}.wav")
        clip.unlink()
        sound.unlink()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cremad_resnet18_vit_lstm", "cremad_efficientnet_lstm"])
def test_the_systems_on_cremad_run_whole_on_folds_by_speaker(name, cremad, tmp_path):
    pytest.importorskip("timm")
    spec = read_pipeline_spec(name)
    streams = tuple(stream.model_copy(update={"weights": RANDOM}) for stream in spec.cache.streams)
    cache = spec.cache.model_copy(update={"streams": streams, "clip": ClipSpec(frames=2), "block_rows": 36})
    runs = tuple(
        run.model_copy(update={"train": run.train.model_copy(update={"epochs": 2, "batch_size": 8})})
        for run in spec.runs
    )
    dataset = spec.dataset.model_copy(update={"root": str(cremad)})
    spec = spec.model_copy(update={"cache": cache, "runs": runs, "dataset": dataset, "references": "off"})
    options = PipelineOptions(out=tmp_path, build=BuildOptions(workers=0, device="cpu"), device="cpu")
    run_pipeline(spec, options, say=lambda _: None)
    saved = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/*/run.json"))]
    assert len(saved) == 3 * 5
    shapes = {stream.name: stream.shape for stream in open_cache(tmp_path / "features.zarr").streams.values()}
    assert shapes == (
        {"resnet18_mel": (8, 512), "vit_tiny": (2, 192)}
        if "resnet18" in name
        else {"efficientnet_b0_mel": (8, 1280), "efficientnet_b0": (2, 1280)}
    )
    assert {run["split"]["kind"] for run in (each["spec"] for each in saved)} == {"outer_folds"}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(json.dumps(report["configurations"]).split('"')) >= {"Audio", "Video", "Audio + video"}


def test_streams_of_real_speech_are_built_by_speaker(shared_data, tmp_path):
    folder = tmp_path / "ravdess"
    folder.mkdir()
    for path in sorted((shared_data / "speech" / "ravdess").glob("03-01-0[15]-01-01-01-0*.flac")):
        shutil.copy(path, folder)
    manifest = read_dataset(RavdessSpec(root=str(folder), media="audio"))
    build_cache(tmp_path / "features.zarr", manifest, CacheSpec(streams=(MfccSpec(),)), BuildOptions(workers=0))
    rows = open_cache(tmp_path / "features.zarr").streams["mfcc"]
    assert (rows.status[:, 0] == Status.OK).all()
    assert manifest.table["group"].n_unique() == 9


@pytest.mark.slow
def test_the_pipeline_of_real_speech_runs_whole_on_folds_by_speaker(shared_data, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("opensmile")
    import_weights(shared_data / "models" / "whisper_tiny_en_encoder_fp16.safetensors", "whisper-tiny.en")
    folder = tmp_path / "ravdess"
    folder.mkdir()
    for path in sorted((shared_data / "speech" / "ravdess").glob("03-01-0[1357]-01-01-01-0[1-4].flac")):
        shutil.copy(path, folder)
    spec = read_pipeline_spec("ravdess_speech")
    runs = tuple(
        run.model_copy(update={"train": run.train.model_copy(update={"epochs": 1, "batch_size": 8})})
        for run in spec.runs
    )
    dataset = spec.dataset.model_copy(update={"root": str(folder)})
    folds = spec.test.model_copy(update={"folds": 2})
    spec = spec.model_copy(update={"dataset": dataset, "runs": runs, "references": "off", "test": folds})
    options = PipelineOptions(out=tmp_path / "out", build=BuildOptions(workers=0, device="cpu"), device="cpu")
    run_pipeline(spec, options, say=lambda _: None)
    assert len(list((tmp_path / "out").glob("runs/*/run.json"))) == 11 * 2
    shapes = {stream.name: stream.shape for stream in open_cache(tmp_path / "out" / "features.zarr").streams.values()}
    of_whisper = {f"whisper_{layer}": (384,) for layer in (1, 2, 3, "last")}
    assert shapes == {"mfcc": (80,), "mel": (1, 64, 401), "egemaps": (88,), **of_whisper}
    cache = open_cache(tmp_path / "out" / "features.zarr")
    layers = [cache.streams[name].features[:, 0] for name in of_whisper]
    assert all(not np.allclose(one, other, atol=0.1) for one, other in itertools.pairwise(layers))
