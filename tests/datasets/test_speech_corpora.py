"""Corpora of clips and sounds: names, labels, speakers as groups, sounds beside pictures."""

from __future__ import annotations

import pytest

from emofuse.datasets.clips import ClipsSpec
from emofuse.datasets.cremad import CremadSpec
from emofuse.datasets.duplicates import find_duplicates
from emofuse.datasets.emodb import EmodbSpec
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.near_duplicates import find_near_duplicates
from emofuse.datasets.ravdess import RavdessSpec
from emofuse.datasets.targets import read_targets
from emofuse.errors import DatasetError
from emofuse.specs import ClassTarget, StratifiedSplit
from emofuse.testing import check_dataset

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def fill(root, *names, content="x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def rows(manifest, *columns):
    return manifest.table.select(columns).rows()


@pytest.fixture
def cremad(tmp_path):
    """Ten actors with three emotions each; of the last clip only the sound, of another only the picture."""
    stems = [f"{1001 + actor}_DFA_{emotion}_XX" for actor in range(10) for emotion in ("ANG", "HAP", "NEU")]
    fill(tmp_path, *(f"VideoFlash/{stem}.flv" for stem in stems[:-1]), *(f"AudioWAV/{stem}.wav" for stem in stems[1:]))
    return fill(tmp_path, "VideoFlash/readme.txt", "AudioWAV/warm_up.wav")


def test_cremad_has_clips_with_their_sounds_and_actors(cremad):
    listing = CremadSpec(root=cremad).read()
    listing.check_no_bad_rows()
    manifest = listing.manifest
    assert len(manifest) == 30
    assert manifest.classes == ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
    assert rows(manifest, "sample_id", "path", "audio_path", "label", "group", "sentence", "intensity")[:2] == [
        ("1001_DFA_ANG_XX", "VideoFlash/1001_DFA_ANG_XX.flv", None, "anger", "1001", "DFA", "unspecified"),
        (
            "1001_DFA_HAP_XX",
            "VideoFlash/1001_DFA_HAP_XX.flv",
            "AudioWAV/1001_DFA_HAP_XX.wav",
            "happiness",
            "1001",
            "DFA",
            "unspecified",
        ),
    ]
    assert rows(manifest, "path", "audio_path")[-1] == ("AudioWAV/1010_DFA_NEU_XX.wav", None)
    assert manifest.info["notes"][:2] == [
        "the labels are the emotions that actors were asked for, which raters did not always perceive",
        "clips and sounds with names that are not those of CREMA-D, left out: 1, first AudioWAV/warm_up.wav",
    ]


@pytest.mark.parametrize(("media", "suffix"), [("video", ".flv"), ("audio", ".wav")])
def test_cremad_with_one_medium_leaves_out_what_lacks_it_and_says_so(cremad, media, suffix):
    manifest = CremadSpec(root=cremad, media=media).read().manifest
    assert len(manifest) == 29
    assert "audio_path" not in manifest.table.columns
    assert all(path.endswith(suffix) for path in manifest.table["path"])
    assert any(f"without a file for `media: {media}`, left out: 1, first 10" in note for note in manifest.info["notes"])


def test_a_split_never_parts_an_actor_unless_that_is_asked_for(cremad):
    grouped = CremadSpec(root=cremad).read().manifest
    splits = dict.fromkeys(grouped.groups)
    for group in splits:
        splits[group] = set(grouped.table.filter(grouped.table["group"] == group)["split"])
    assert all(len(of_actor) == 1 for of_actor in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}
    parted = CremadSpec(root=cremad, split=StratifiedSplit(grouped=False)).read().manifest
    assert any("parts" in note or "several splits" in note for note in parted.info["notes"])


def test_pointers_of_git_lfs_are_bad_rows_that_say_what_to_do(cremad):
    fill(cremad, "VideoFlash/1001_DFA_HAP_XX.flv", "AudioWAV/1002_DFA_ANG_XX.wav", content=LFS)
    listing = CremadSpec(root=cremad).read()
    assert listing.bad_count == 2
    with pytest.raises(
        DatasetError, match=r"git-lfs pointer text instead of a file: 2 \(fetch the files: git lfs pull\)"
    ):
        listing.check_no_bad_rows()
    assert listing.bad_rows["detail"].to_list() == ["", "audio_path AudioWAV/1002_DFA_ANG_XX.wav"]


def test_a_folder_without_the_corpus_is_an_error_that_shows_a_name(tmp_path):
    fill(tmp_path, "a.mp4", "b.txt")
    with pytest.raises(
        DatasetError, match=r"no file of CREMA-D below this folder, expected names such as 1001_DFA_ANG"
    ):
        CremadSpec(root=tmp_path).read()


def test_a_manifest_with_sounds_apart_is_written_and_read_back(cremad, tmp_path):
    manifest = CremadSpec(root=cremad).read().manifest
    manifest.write(tmp_path / "manifest.parquet")
    assert Manifest.read(tmp_path / "manifest.parquet").equals(manifest)
    sizes = manifest.files["bytes"].to_list()
    assert sizes[:2] == [1, 2]  # of the clip alone, of clip and sound


RAVDESS = [f"{modality}-01-0{emotion}-01-01-01-{actor:02}" for modality in ("01", "02", "03") for emotion in (1, 3, 5)
           for actor in (1, 2, 3, 4)]  # fmt: skip


def test_ravdess_reads_the_parts_of_its_names(tmp_path):
    suffix = {"01": "mp4", "02": "mp4", "03": "flac"}
    fill(tmp_path, *(f"Actor_{stem[-2:]}/{stem}.{suffix[stem[:2]]}" for stem in RAVDESS))
    manifest = RavdessSpec(root=tmp_path).read().manifest
    assert len(manifest) == 12
    assert manifest.classes[:3] == ("neutral", "calm", "happy")
    assert rows(manifest, "sample_id", "path", "label", "group", "sex", "intensity")[0] == (
        "01-01-01-01-01-01-01", "Actor_01/01-01-01-01-01-01-01.mp4", "neutral", "01", "male", "normal",
    )  # fmt: skip
    assert "audio_path" not in manifest.table.columns
    audio = RavdessSpec(root=tmp_path, media="audio").read().manifest
    assert set(audio.table["sample_id"].str.slice(0, 2)) == {"03"}


def test_ravdess_joins_silent_clips_with_their_sounds(tmp_path):
    fill(tmp_path, "02-01-03-01-01-01-01.mp4", "03-01-03-01-01-01-01.wav", "03-01-04-02-01-02-02.wav")
    fill(tmp_path, "03-02-04-02-01-02-02.wav", "again/03-01-03-01-01-01-01.wav")
    manifest = RavdessSpec(root=tmp_path).read().manifest
    assert rows(manifest, "path", "audio_path", "label") == [
        ("02-01-03-01-01-01-01.mp4", "03-01-03-01-01-01-01.wav", "happy"),
        ("03-01-04-02-01-02-02.wav", None, "sad"),
    ]
    notes = " | ".join(manifest.info["notes"])
    assert "files with the name of another one (an archive that was unpacked twice), left out: 1" in notes
    assert "not of `vocal: speech`, left out: 1" in notes
    assert len(RavdessSpec(root=tmp_path, vocal="all").read().manifest) == 3


def test_real_ravdess_is_complete(shared_data):
    manifest = RavdessSpec(root=shared_data / "speech" / "ravdess").read().manifest
    assert len(manifest) == 1440
    counts = dict(manifest.table["label"].value_counts().rows())
    assert counts == {**dict.fromkeys(manifest.classes, 192), "neutral": 96}
    assert len(set(manifest.groups)) == 24
    check_dataset(RavdessSpec(root=shared_data / "speech" / "ravdess"))


def test_emodb_reads_speaker_text_and_emotion(tmp_path):
    names = [
        f"wav/{speaker}a0{text}{letter}a.wav" for speaker in ("03", "08", "16") for text in (1, 2) for letter in "WFN"
    ]
    manifest = EmodbSpec(root=fill(tmp_path, *names)).read().manifest
    assert rows(manifest, "sample_id", "label", "group", "text", "sex")[:2] == [
        ("03a01Fa", "happiness", "03", "a01", "male"),
        ("03a01Na", "neutral", "03", "a01", "male"),
    ]
    assert set(manifest.groups) == {"03", "08", "16"}


TABLE = """path,label,speaker,start,end,sound,note
film/a.mp4,joy,monica,0:16:16.059,976.5,,x
film/a.mp4,anger,joey,980,981.25,,y
film/b.mp4,joy,joey,,,film/b.wav,z
"""


def test_a_table_of_spans_and_sounds(tmp_path):
    fill(tmp_path, "film/a.mp4", "film/b.mp4", "film/b.wav")
    (tmp_path / "clips.csv").write_text(TABLE)
    spec = ClipsSpec(
        root=tmp_path, group_column="speaker", start_column="start", end_column="end", audio_column="sound",
        split=StratifiedSplit(train=0.6, val=0.2, test=0.2),
    )  # fmt: skip
    listing = spec.read()
    listing.check_no_bad_rows()
    assert rows(listing.manifest, "sample_id", "path", "start_s", "end_s", "audio_path", "group", "note") == [
        ("film/a@976.059-976.5", "film/a.mp4", 976.059, 976.5, None, "monica", "x"),
        ("film/a@980-981.25", "film/a.mp4", 980.0, 981.25, None, "joey", "y"),
        ("film/b", "film/b.mp4", None, None, "film/b.wav", "joey", "z"),
    ]


def test_a_parquet_table_of_members(tmp_path):
    import polars as pl

    fill(tmp_path, "shard.tar")
    table = pl.DataFrame(
        {"path": ["shard.tar"] * 4, "member": list("abcd"), "label": list("xyxy"), "group": [1, 1, 2, 2]}
    )
    table.write_parquet(tmp_path / "clips.parquet")
    manifest = ClipsSpec(root=tmp_path, table="clips.parquet").read().manifest
    assert rows(manifest, "sample_id", "path", "member", "group")[:2] == [
        ("shard/a", "shard.tar", "a", "1"),
        ("shard/b", "shard.tar", "b", "1"),
    ]


def test_spans_that_are_none_are_bad_rows(tmp_path):
    fill(tmp_path, "a.mp4")
    (tmp_path / "clips.csv").write_text(
        "path,label,start_s,end_s\na.mp4,x,2,1\na.mp4,y,soon,3\na.mp4,x,-1,4\na.mp4,x,1,2\n"
    )
    listing = ClipsSpec(root=tmp_path).read()
    assert listing.bad_rows.select("row", "fault", "detail").rows() == [
        (2, "no span of time", "from 2.0 to 1.0 s"),
        (3, "no span of time", "start_s 'soon', expected seconds or hours:minutes:seconds"),
        (4, "no span of time", "start_s '-1', expected seconds or hours:minutes:seconds"),
    ]


def test_a_sound_outside_of_the_root_is_a_bad_row(tmp_path):
    root = tmp_path / "data"
    fill(tmp_path, "data/a.mp4", "secret.wav")
    (root / "clips.csv").write_text("path,label,audio_path\na.mp4,x,../secret.wav\na.mp4,y,gone.wav\na.mp4,y,\n")
    listing = ClipsSpec(root=root).read()
    assert listing.bad_rows.select("fault", "detail").rows() == [
        ("path leaves the root", "audio_path ../secret.wav"),
        ("missing file", "audio_path gone.wav"),
        *listing.bad_rows.select("fault", "detail").rows()[2:],
    ]


def test_manifests_of_pictures_have_no_columns_of_sources(tmp_path):
    fill(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text("path,label,member\na.jpg,x,1\nb.jpg,y,2\n")
    from emofuse.datasets.csv_table import CsvSpec

    manifest = CsvSpec(root=tmp_path, split=StratifiedSplit()).read().manifest
    assert manifest.table.columns[6:] == ["table_member"]


VOTES = """"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"
"1","1001_DFA_ANG_XX","A","70.1","D","40","A","66"
"2","1001_DFA_HAP_XX","A:N","50:51","H","70","H","80"
"""


def test_cremad_has_the_emotions_that_raters_perceived(cremad):
    assert CremadSpec(root=cremad).read().manifest.info["notes"][-1] == (
        "without processedResults/summaryTable.csv, the emotions that raters perceived are unknown"
    )
    fill(cremad, "processedResults/summaryTable.csv", content=VOTES)
    manifest = CremadSpec(root=cremad).read().manifest
    assert rows(manifest, "sample_id", "label", "perceived_voice", "perceived_face", "perceived_both")[:3] == [
        ("1001_DFA_ANG_XX", "anger", "anger", "disgust", "anger"),
        ("1001_DFA_HAP_XX", "happiness", None, "happiness", "happiness"),
        ("1001_DFA_NEU_XX", "neutral", None, None, None),
    ]
    assert manifest.info["notes"][-1] == "votes in which several emotions share the first place, and are left empty: 1"
    targets = read_targets(manifest, ClassTarget(column="perceived_face"))
    assert targets.names == manifest.classes
    assert targets.labels[:3].tolist() == [1, 3, -1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "git-lfs pointer text instead of a table; fetch the files: git lfs pull"),
        (VOTES.replace("FaceVote", "Face"), "there is no column FaceVote"),
        (VOTES.replace('"H","70"', '"X","70"'), "FaceVote of '1001_DFA_HAP_XX' must be A, D, F, H, N, S, got 'X'"),
    ],
)
def test_a_table_of_votes_that_is_none_is_one_error(cremad, content, message):
    fill(cremad, "processedResults/summaryTable.csv", content=content)
    with pytest.raises(DatasetError, match=message):
        CremadSpec(root=cremad).read()


def test_copies_of_clips_are_found_with_their_sounds_and_spans_of_one_file_are_none(tmp_path):
    fill(tmp_path, "a.mp4", "b.mp4", "c.mp4", "a.wav", content="clip")
    fill(tmp_path, "b.wav", content="clop")
    lines = ["path,label,audio_path,start_s,end_s", "a.mp4,x,a.wav,,", "b.mp4,y,a.wav,,", "b.mp4,y,b.wav,,"]
    lines += ["c.mp4,x,,0,1", "c.mp4,y,,1,2"]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    manifest = ClipsSpec(root=tmp_path).read().manifest
    (group,) = find_duplicates(manifest)
    assert group.paths == ("a.mp4", "b.mp4")
    assert find_near_duplicates(manifest).unreadable == 0


def test_a_check_of_clips_reads_no_headers_of_images(cremad):
    from typer.testing import CliRunner

    from emofuse.cli import app

    for file in cremad.rglob("*.*"):
        file.write_text(file.name)
    result = CliRunner().invoke(app, ["dataset", "check", "cremad", "--data", str(cremad)])
    assert result.exit_code == 0, result.output
    assert "unreadable header" not in result.output
    assert "Sizes in pixels" not in result.output
    assert "actors were asked for" in result.output
