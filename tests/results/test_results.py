"""Files of runs may come from anywhere: nothing in them is run."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from emofuse.errors import ResultsError
from emofuse.results import Predictions, RunRecord, read_predictions, read_weights, write_run
from emofuse.results.arrays import write_arrays


class Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["sample_id", "label", "probs"])
def test_predictions_with_code_in_them_are_refused_unrun(tmp_path, name):
    arrays = {"sample_id": np.array(["a"]), "label": np.array([0]), "probs": np.array([[0.5, 0.5]])}
    np.savez(tmp_path / "predictions.npz", **arrays)
    assert read_predictions(tmp_path).label.tolist() == [0]
    arrays[name] = np.array([Payload(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "predictions.npz", **arrays)
    with pytest.raises(ResultsError, match=r"predictions\.npz: missing or damaged \(Object arrays cannot be loaded"):
        read_predictions(tmp_path)
    assert not (tmp_path / "ran").exists()


def record_of(target):
    """A record with as little as `write_run` needs, of a run with this target."""
    empty = {key: {} for key in ("cache_spec", "dataset", "streams", "rows", "metrics", "versions", "machine")}
    spec = {"name": "a", **({"target": target} if target else {})}
    return RunRecord(
        digest="0" * 64, name="a", spec=spec, classes=["x", "y"], history=[], best_epoch=1, parameters=1, seconds=1.0,
        created="", **empty
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (None, "probs"),
        ({"kind": "class"}, "probs"),
        ({"kind": "distribution"}, "probs"),
        ({"kind": "multilabel"}, "probs"),
        ({"kind": "regression"}, "values"),
    ],
)
def test_predictions_of_every_target_are_saved_by_the_name_of_what_they_are(tmp_path, target, name):
    record = record_of(target)
    true = None if record.target_kind == "class" else np.array([[1, 0], [0.25, 0.75]], np.float32)
    outputs = np.array([[0.5, 0.5], [0.125, 0.875]], np.float32)
    saved = Predictions(np.array(["a", "b"]), np.array([0, 1]), outputs, target=true)
    folder = write_run(tmp_path, record, saved, {})
    with np.load(folder / "predictions.npz") as arrays:
        assert set(arrays) == {"sample_id", "label", name} | ({"target"} if true is not None else set())
    read = read_predictions(folder)
    assert np.array_equal(read.outputs, outputs)
    assert np.array_equal(read.probs, outputs)
    assert (read.target is None) if true is None else np.array_equal(read.target, true)


def test_predictions_of_a_former_run_have_no_target(tmp_path):
    np.savez(tmp_path / "predictions.npz", sample_id=np.array(["a"]), label=np.array([1]), probs=np.array([[0.5, 0.5]]))
    read = read_predictions(tmp_path)
    assert read.outputs.tolist() == [[0.5, 0.5]]
    assert read.group is None
    assert read.target is None


def test_arrays_that_the_disk_refuses_are_an_error_of_the_system(tmp_path):
    arrays = {"a": np.zeros(3, np.float32)}
    with pytest.raises(FileNotFoundError) as error:
        write_arrays(tmp_path / "nowhere" / "weights.safetensors", arrays)
    assert error.value.filename == str(tmp_path / "nowhere" / "weights.safetensors")
    write_arrays(tmp_path / "weights.safetensors", arrays, {"key": "value"})
    assert read_weights(tmp_path).keys() == {"a"}


def test_a_full_disk_while_weights_are_written_is_an_error_of_the_system(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", refuse)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_arrays(tmp_path / "w.safetensors", {})
    assert error.value.errno == errno.ENOSPC
