"""Sources of rows: spans, members and sounds apart, all below the root."""

from __future__ import annotations

import polars as pl

from emofuse.datasets.files import DatasetFiles
from emofuse.datasets.sources import Source, changed_sources, moved_below, sources_of

ROWS = {
    "path": ["a.mp4", "b.mp4", "c.mp4", "", "../d.mp4"],
    "problem": [None, None, None, "no path", None],
    "audio_path": [None, "b.wav", "../c.wav", None, None],
    "start_s": [1.0, None, None, None, None],
    "end_s": [2.0, None, None, None, None],
}


def test_a_row_whose_clip_or_sound_leaves_the_root_has_no_source(tmp_path):
    for name in ("a.mp4", "b.mp4", "b.wav", "c.mp4"):
        (tmp_path / name).write_text("x")
    assert sources_of(pl.DataFrame(ROWS), tmp_path, DatasetFiles(tmp_path)) == [
        Source(tmp_path / "a.mp4", start_s=1.0, end_s=2.0),
        Source(tmp_path / "b.mp4", audio_path=tmp_path / "b.wav"),
        None,
        None,
        None,
    ]


def test_a_link_of_a_sound_out_of_the_root_is_not_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.mp4").write_text("x")
    (tmp_path / "secret.wav").write_text("x")
    (tmp_path / "data" / "a.wav").symlink_to(tmp_path / "secret.wav")
    table = pl.DataFrame({"path": ["a.mp4"], "problem": [None], "audio_path": ["a.wav"]})
    assert sources_of(table, tmp_path / "data", DatasetFiles(tmp_path / "data")) == [None]
    followed = sources_of(table, tmp_path / "data", DatasetFiles(tmp_path / "data", follow_links=True))
    assert followed == [Source(tmp_path / "data/a.mp4", audio_path=tmp_path / "data/a.wav")]


def test_another_span_or_member_is_a_change_and_another_place_of_a_sound_is_none():
    old = pl.DataFrame({"start_s": [0.0, 1.0, None], "audio_path": ["a", "b", "c"]})
    new = pl.DataFrame({"start_s": [0.0, 1.5, None], "audio_path": ["a", "b", "d"], "member": [None, None, "x"]})
    assert changed_sources(old, new).to_list() == [False, True, True]
    assert changed_sources(old, old).to_list() == [False] * 3


def test_paths_of_sounds_move_with_those_of_clips():
    moved = moved_below(pl.DataFrame({"path": ["a.mp4", ""], "audio_path": ["a.wav", None]}), "half")
    assert moved.rows() == [("half/a.mp4", "half/a.wav"), ("", None)]
