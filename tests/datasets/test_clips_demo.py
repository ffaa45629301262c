"""The generated clips: their cues, their files, and the accuracy that each subset of cues can reach."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
import sys
from collections import Counter

import numpy as np
import pytest

from emofuse.datasets import read_dataset
from emofuse.datasets.clips import ClipsSpec
from emofuse.datasets.clips_demo import clips_demo_info, drawing, generate_clips_demo, generator, truth, voice
from emofuse.datasets.clips_demo.truth import CLASSES, CUES, LIES, plan_clips, reachable_accuracy, true_bits
from emofuse.datasets.clips_demo_dataset import ClipsDemoSpec
from emofuse.datasets.sources import Source
from emofuse.errors import DatasetError
from emofuse.media.audio import read_sound
from emofuse.media.video import read_clip
from emofuse.specs import ClipSpec, DecodeSpec


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demo"
    generate_clips_demo(root, clips=96, seed=0)
    return root


def fingerprint(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_label_has_bits_of_its_own():
    bits = {tuple(true_bits(label).values()) for label in CLASSES}
    assert bits == set(itertools.product((0, 1), repeat=3))


@pytest.mark.parametrize(
    ("cues", "expected"),
    [
        ([], 1 / 8),
        (["mouth"], 0.94 / 4),
        (["voice"], 0.92 / 4),
        (["blush", "mouth"], 0.94 * 0.95 / 2),
        (["mouth", "blush", "voice"], 0.94 * 0.95 * 0.92),
    ],
)
def test_reachable_accuracy_is_the_product_of_what_the_cues_tell(cues, expected):
    assert reachable_accuracy(cues) == pytest.approx(expected, abs=1e-12)


def test_reachable_accuracy_of_an_unknown_cue_is_refused():
    with pytest.raises(ValueError, match="cues: hair: expected some of mouth, blush, voice"):
        reachable_accuracy(["hair"])


def test_the_best_classifier_scores_what_is_reachable_on_the_planned_clips():
    clips = plan_clips(576, 0)
    for size in range(len(CUES) + 1):
        for cues in itertools.combinations(CUES, size):
            honest = [all(clip.shown[cue] == true_bits(clip.label)[cue] for cue in cues) for clip in clips]
            assert np.mean(honest) / 2 ** (3 - size) == pytest.approx(reachable_accuracy(cues), abs=0.02)


def test_lies_are_as_many_as_defined_for_every_speaker():
    clips = plan_clips(576, 0)
    for cue in CUES:
        lying = [clip.speaker for clip in clips if clip.shown[cue] != true_bits(clip.label)[cue]]
        counts = Counter(lying)
        assert len(lying) == pytest.approx(576 * LIES[cue], abs=1)
        assert all(abs(counts[speaker] - 48 * LIES[cue]) <= 1 for speaker in range(truth.SPEAKERS))


def test_speakers_have_equally_many_clips_of_each_label():
    counts = Counter((clip.speaker, clip.label) for clip in plan_clips(576, 0))
    assert set(counts.values()) == {6}
    assert len(counts) == truth.SPEAKERS * len(CLASSES)


def test_both_movements_show_the_same_frames_in_another_order(tmp_path):
    """No frame shows a cue of the picture, nor does anything that does not know their order: not even after coding."""
    look = drawing.draw_look(np.random.default_rng(1))
    sound = np.zeros(round(generator.SECONDS * voice.RATE_HZ), dtype=np.float32)
    seen = {}
    for closes, pales in itertools.product((False, True), repeat=2):
        frames = drawing.draw_frames(look, closes=closes, pales=pales, rng=np.random.default_rng(2))
        path = tmp_path / f"{closes}{pales}.mp4"
        generator.write_clip(path, frames, sound)
        for count in (4, drawing.FRAMES):
            clip = read_clip(Source(path), ClipSpec(frames=count), DecodeSpec())
            seen[closes, pales, count] = [frame.tobytes() for frame in clip.frames]
    for count in (4, drawing.FRAMES):
        orders = [seen[closes, pales, count] for closes, pales in itertools.product((False, True), repeat=2)]
        assert len({tuple(order) for order in orders}) == 4
        assert len({tuple(sorted(order)) for order in orders}) == 1
        half = count // 2
        assert orders[2] == orders[0][:half][::-1] + orders[0][half:]
        assert orders[1] == orders[0][:half] + orders[0][half:][::-1]


def test_a_trembling_voice_is_as_loud_and_its_loudness_swings():
    own = voice.draw_voice(np.random.default_rng(0))
    sounds = [voice.draw_sound(own, 1.25, trembles=each, rng=np.random.default_rng(3)) for each in (False, True)]
    loudness = [np.sqrt(np.square(sound.reshape(-1, 400)).mean(axis=1)) for sound in sounds]
    assert np.std(sounds[0]) == pytest.approx(np.std(sounds[1]), rel=0.02)
    assert np.std(loudness[1]) > 3 * np.std(loudness[0])


def test_clips_are_read_as_they_were_planned(demo):
    manifest = read_dataset(ClipsDemoSpec(root=demo, clips=96))
    planned = {clip.sample_id: clip for clip in plan_clips(96, 0)}
    assert (len(manifest), manifest.classes) == (96, tuple(sorted(CLASSES)))
    assert manifest.table["problem"].null_count() == 96
    for row in manifest.table.iter_rows(named=True):
        clip = planned[row["sample_id"].rpartition("/")[2]]
        assert (row["label"], row["group"]) == (clip.label, clip.speaker_id)
    path = demo / manifest.table["path"][0]
    clip = read_clip(Source(path), ClipSpec(frames=20), DecodeSpec())
    assert {frame.shape for frame in clip.frames} == {(96, 96, 3)}
    assert clip.times_s == pytest.approx(np.arange(20) / 16)
    assert read_sound(Source(path)).rate_hz == 16_000


def test_its_splits_keep_speakers_apart_and_its_folder_is_a_dataset_of_clips(demo):
    manifest = read_dataset(ClipsDemoSpec(root=demo, clips=96))
    splits = manifest.table.group_by("group").agg("split")
    assert all(len(set(row["split"])) == 1 for row in splits.iter_rows(named=True))
    assert set(manifest.table["split"]) == {"train", "val", "test"}
    plain = read_dataset(ClipsSpec(root=demo))
    assert plain.table.equals(manifest.table)


def test_the_manifest_knows_what_is_reachable(demo):
    info = read_dataset(ClipsDemoSpec(root=demo, clips=96)).info
    assert (info["kind"], info["name"]) == ("clips_demo", "clips_demo")
    assert info["reachable_accuracy"][""] == 0.125
    assert info["reachable_accuracy"]["blush+mouth"] == pytest.approx(0.4465)
    assert set(info["order_cues"]) == {"mouth", "blush"}
    assert json.loads(json.dumps(clips_demo_info(demo))) == clips_demo_info(demo)


def test_same_clips_and_seed_give_the_same_bytes_and_another_seed_others(demo, tmp_path):
    generate_clips_demo(tmp_path / "again", clips=96, seed=0)
    assert fingerprint(tmp_path / "again") == fingerprint(demo)
    generate_clips_demo(tmp_path / "other", clips=96, seed=1)
    shared = set(fingerprint(tmp_path / "other").values()) & set(fingerprint(demo).values())
    assert shared <= {fingerprint(demo)["clips.csv"]}


def test_clips_that_are_there_are_left_alone(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    generate_clips_demo(demo, clips=96, seed=0)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_other_clips_in_their_place_are_refused(demo):
    message = f"{demo}: holds the clips_demo dataset of generator_version 1, clips 96, seed 0; asked for was"
    with pytest.raises(DatasetError, match=re.escape(message)):
        generate_clips_demo(demo, clips=96, seed=7)


def test_a_folder_of_the_users_is_refused_and_kept(tmp_path):
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    message = f"{tmp_path}: no generated clips_demo dataset (it has no clips_demo.json)"
    with pytest.raises(DatasetError, match=re.escape(message)):
        generate_clips_demo(tmp_path, clips=96, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


def test_an_interrupted_generation_keeps_its_clips_and_draws_a_half_written_one_again(tmp_path, monkeypatch):
    """The command line says that finished work is kept."""
    begun, written = [], []

    def write(path, frames, sound):
        begun.append(path.name)
        path.write_bytes(b"half")
        if begun[19:] and path.name == begun[19]:
            raise KeyboardInterrupt
        path.write_bytes(b"whole")

    def write_whole(path, frames, sound):
        written.append(path.name)
        path.write_bytes(b"whole")

    monkeypatch.setattr(generator, "write_clip", write)
    with pytest.raises(KeyboardInterrupt):
        generate_clips_demo(tmp_path / "demo", clips=96, seed=0)
    [hidden] = tmp_path.iterdir()
    kept = len(list((hidden / "records").glob("*.json")))
    assert 0 < kept < 96
    written = []
    monkeypatch.setattr(
        generator, "write_clip", lambda path, *_: written.append(path.name) or path.write_bytes(b"whole")
    )
    generate_clips_demo(tmp_path / "demo", clips=96, seed=0)
    assert len(written) == 96 - kept
    assert begun[19] in written
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert {path.read_bytes() for path in (tmp_path / "demo" / "clips").iterdir()} == {b"whole"}
    assert not (tmp_path / "demo" / "records").exists()


def test_without_pyav_an_error_names_the_extra_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DatasetError, match=r"clips are written by PyAV: pip install 'emofuse\[audio\]' \(ModuleNotF"):
        generate_clips_demo(tmp_path / "demo", clips=96, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_looking_at_a_folder_generates_nothing(tmp_path):
    with pytest.raises(DatasetError, match="no clips_demo dataset here yet; make it: emofuse run clips_demo"):
        ClipsDemoSpec(root=tmp_path / "demo").look()
    assert list(tmp_path.iterdir()) == []


def test_looking_at_clips_that_are_there_lists_them(demo):
    with (demo / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(ClipsDemoSpec(root=demo).look().manifest) == len(rows) == 96
