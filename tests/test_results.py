"""Files of runs may come from anywhere: nothing in them is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emofuse.errors import ResultsError
from emofuse.results import read_predictions


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
