"""The table: the same rows as CSV and Parquet, whole also behind an error, and in parts of bounded memory."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import polars as pl
import pytest
from face_videos import RUNS, scene

from emofuse.errors import DatasetError
from emofuse.media.frames import NumberedFrame
from emofuse.predict import ActionUnit, Prediction
from emofuse.predict import rows as rows_module
from emofuse.predict.frames import FramePredictor
from emofuse.predict.rows import RowTable, writing_rows


@pytest.fixture(scope="module")
def table(open_run):
    return RowTable(open_run("faces"))


@pytest.fixture(scope="module")
def predicted(open_run):
    pictures = [scene([(20, 40)]), scene([])]
    with FramePredictor(open_run("faces")) as predictor:
        return [predictor.predict(NumberedFrame(n, n / 25, picture)) for n, picture in enumerate(pictures)]


def test_a_row_has_time_box_outputs_and_action_units_of_its_face(table, predicted, tmp_path):
    with writing_rows(tmp_path / "a.csv", table) as writer:
        for each in predicted:
            writer.add(table.of_frame("a.mp4", each))
    read = pl.read_csv(tmp_path / "a.csv")
    assert read.columns == list(table.schema)
    face, none = read.rows(named=True)
    (each,) = predicted[0].predictions
    assert (face["path"], face["frame"], face["time_s"], face["face"]) == ("a.mp4", 0, 0.0, 1)
    assert [face[name] for name in ("left", "top", "right", "bottom")] == pytest.approx(
        each.face.box.tolist(), rel=1e-6
    )
    assert [face["prob.bright"], face["prob.dark"]] == pytest.approx(each.outputs.tolist(), rel=1e-6)
    assert face["smooth.dark"] == pytest.approx(float(each.smoothed[1]), rel=1e-6)
    assert face["label"] == ("bright", "dark")[int(each.smoothed.argmax())]
    assert {name: face[f"au.{name}"] for name in ("mouth_width",)} == pytest.approx(
        {unit.name: unit.value for unit in each.action_units if unit.name == "mouth_width"}, rel=1e-5
    )
    assert "activation.mouth_width" in face
    assert (none["frame"], none["face"], none["label"], none["prob.dark"]) == (1, None, None, None)
    assert none["missing"] == "; ".join(f"{name}: no_detection" for name in RUNS["faces"])


def test_csv_and_parquet_hold_the_same(table, predicted, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_PART_ROWS", 2)  # so that several parts are joined
    for suffix in (".csv", ".parquet"):
        with writing_rows(tmp_path / f"a{suffix}", table) as writer:
            for each in [*predicted, *predicted, predicted[0]]:
                writer.add(table.of_frame("a.mp4", each))
    one = pl.read_csv(tmp_path / "a.csv", schema_overrides=table.schema)
    other = pl.read_parquet(tmp_path / "a.parquet")
    assert one.height == other.height == 5
    assert one.schema == other.schema
    numbers = pl.selectors.float()
    assert one.drop(numbers).equals(other.drop(numbers))
    difference = one.select(numbers).fill_null(0) - other.select(numbers).fill_null(0)
    assert max(abs(value) for row in difference.rows() for value in row) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_error_leaves_a_whole_table_of_the_rows_so_far(table, predicted, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"

    def write():
        with writing_rows(path, table) as writer:
            writer.add(table.of_frame("a.mp4", predicted[0]))
            assert not path.exists()
            raise RuntimeError("somewhere else")

    with pytest.raises(RuntimeError, match="somewhere else"):
        write()
    read = pl.read_csv(path) if suffix == ".csv" else pl.read_parquet(path)
    assert read["frame"].to_list() == [0]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_the_disk_refused_rows_of_is_not_left_with_a_hole(tmp_path, monkeypatch, suffix):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    table = SimpleNamespace(schema={"path": pl.String})

    def write() -> None:
        with writing_rows(tmp_path / f"a{suffix}", table) as writer, monkeypatch.context() as patched:
            patched.setattr(rows_module, "_PART_ROWS", 1)
            patched.setattr(rows_module, "_text", refuse)
            patched.setattr(pl.DataFrame, "write_parquet", refuse)
            writer.add([{"path": "a.jpg"}])

    with pytest.raises(OSError, match="No space left"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_rows_has_its_columns(table, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with writing_rows(path, table):
        pass
    read = pl.read_csv(path) if suffix == ".csv" else pl.read_parquet(path)
    assert read.columns == list(table.schema)


def test_another_suffix_and_a_missing_folder_are_refused_before_any_work(table, tmp_path):
    with pytest.raises(DatasetError, match=r"a.txt: a table is written as .csv or .parquet, got .txt"):
        writing_rows(tmp_path / "a.txt", table).__enter__()
    with pytest.raises(DatasetError, match="its folder does not exist; make it first: mkdir -p"):
        writing_rows(tmp_path / "no" / "a.csv", table).__enter__()


def test_an_image_has_a_row_without_a_time_and_with_the_box_of_its_face(table, tmp_path):
    unit = ActionUnit("mouth_width", 0.5, None)
    probs, box = {"dark": 0.75, "bright": 0.25}, (10.0, 20.0, 30.0, 40.0)
    prediction = Prediction(tmp_path / "a.png", probs, True, (unit,), {}, None, face_box=box)
    with writing_rows(tmp_path / "a.csv", table) as writer:
        writer.add([table.of_file(prediction)])
    (row,) = pl.read_csv(tmp_path / "a.csv").rows(named=True)
    assert (row["path"], row["time_s"], row["label"]) == (str(tmp_path / "a.png"), None, "dark")
    assert [row[name] for name in ("left", "top", "right", "bottom")] == [10, 20, 40, 60]
    assert (row["prob.bright"], row["smooth.bright"], row["au.mouth_width"]) == (0.25, None, 0.5)
