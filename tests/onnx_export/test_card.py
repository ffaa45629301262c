"""The model card: what it must say, made from the record of any run."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import ResultsError
from emofuse.onnx_export import write_card
from emofuse.predict import find_model

VECTORS = {"one": ("custom", (5,), (5,))}
CONCAT = {"kind": "concat", "embed_dim": 4, "width": 4, "depth": 1}


def _card(folder, tmp_path, **how):
    return write_card(find_model(folder, **how), tmp_path / "card" / "MODEL_CARD.md")


def _change(folder, **streams):
    data = json.loads((folder / "run.json").read_text())
    for name, values in streams.items():
        data["streams"][name] |= values
    (folder / "run.json").write_text(json.dumps(data))


def test_the_card_has_every_part(save_run, tmp_path):
    text = _card(save_run(CONCAT, VECTORS), tmp_path)
    assert (tmp_path / "card" / "MODEL_CARD.md").read_text(encoding="utf-8") == text
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Intended use",
        "What must not be inferred",
        "Data",
        "Streams",
        "Model",
        "Scores",
        "Limits",
        "Made with",
    ]
    for sentence in (
        "# Model card: model",
        "The model predicts one of 3 classes: anger, fear, joy.",
        "is not the inner state of a person",
        "not for hiring",
        "policing",
        "Dataset: faces (kind folder).",
        "A note of the reader.",
        "A note of training.",
        "Stream one: no weights.",
        "Head: concat, 10 parameters.",
        "Fairness was not tested",
        "Fewer than 30 test rows: anger, fear, joy.",
    ):
        assert sentence in text


def test_scores_have_their_intervals(save_run, tmp_path):
    text = _card(save_run(CONCAT, VECTORS), tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("- On 12 test rows: ")]
    assert line.count("[") == line.count("]") > 0
    assert "95 % bootstrap intervals" in text
    assert "[" not in next(line for line in text.splitlines() if line.startswith("- On 12 validation rows: "))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (
            {"kind": "registry", "name": "resnet50-v1", "sha256": "0" * 64, "seed": None},
            "weights resnet50-v1 of torchvision, ImageNet-1k, licence BSD-3-Clause",
        ),
        (
            {"kind": "file", "name": "mine.pth", "sha256": "0" * 64, "seed": None},
            "weights mine.pth, whose licence is not in the registry: ask their publisher",
        ),
        ({"kind": "random", "name": None, "sha256": None, "seed": 0}, "random weights, without a licence"),
    ],
)
def test_weights_are_named_with_their_licences(save_run, tmp_path, weights, sentence):
    folder = save_run(CONCAT, VECTORS)
    _change(folder, one={"weights": weights})
    text = _card(folder, tmp_path)
    assert f"Stream one: {sentence}." in text
    assert ("RANDOM WEIGHTS" in text) == (weights["kind"] == "random")


@pytest.mark.parametrize("target", ["regression", "multilabel", "distribution"])
def test_other_targets_have_cards(save_run, tmp_path, target):
    text = _card(save_run(CONCAT, VECTORS, target=target), tmp_path)
    what = {"regression": "numbers", "multilabel": "which of 3 labels hold", "distribution": "a distribution over 3"}
    assert f"The model predicts {what[target]}" in text


def test_a_card_of_several_runs_says_that_their_mean_was_not_scored(save_run, tmp_path):
    for seed in (0, 1):
        folder = save_run(CONCAT, VECTORS, seed=seed)
    text = _card(folder, tmp_path, ensemble=True)
    assert "It is the mean of 2 runs." in text
    assert "The mean of their outputs was not scored." in text


def test_a_card_of_a_second_training_says_that_validation_rows_are_among_its_training_rows(save_run, tmp_path):
    folder, sentence = save_run(CONCAT, VECTORS), "so the table counts them twice"
    assert sentence not in _card(folder, tmp_path)
    data = json.loads((folder / "run.json").read_text())
    data["refit"] = [{"rows": 8, "epochs": 1, "train_loss": 0.5, "seconds": 0.1}]
    (folder / "run.json").write_text(json.dumps(data))
    assert sentence in _card(folder, tmp_path)


def test_a_record_that_lacks_a_key_is_an_error(save_run, tmp_path):
    folder = save_run(CONCAT, VECTORS)
    data = json.loads((folder / "run.json").read_text())
    del data["spec"]["head"]["kind"]
    (folder / "run.json").write_text(json.dumps(data))
    with pytest.raises(ResultsError, match=r"spec\.head\.kind: is missing"):
        _card(folder, tmp_path)


def test_the_command_line_writes_the_card_beside_the_file(save_run, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = save_run(CONCAT, VECTORS)
    result = CliRunner().invoke(app, ["export", "--run", str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "checked on 20 rows (0 of samples): largest difference" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["MODEL_CARD.md", "model.onnx"]
    assert "## ONNX file" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_the_command_line_writes_the_card_alone(save_run, tmp_path):
    folder = save_run(CONCAT, VECTORS)
    arguments = ["export", "--run", str(folder.parent), "--to", "card", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Model: model, the only configuration" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["MODEL_CARD.md"]


def test_a_card_has_no_backbone(save_run, tmp_path):
    folder = save_run(CONCAT, VECTORS)
    result = CliRunner().invoke(app, ["export", "--run", str(folder), "--to", "card", "--with-backbone"])
    assert result.exit_code == 2
    assert "are options of an ONNX file" in result.output
