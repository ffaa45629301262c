"""What is logged of a run and of a report, whatever the tracker."""

from __future__ import annotations

from saved_runs import made_up_record

from emofuse.specs import digest
from emofuse.tracking.logged import logged_report, logged_run, logged_searched_run


def test_the_spec_is_flattened_and_lists_of_names_are_joined():
    entry = logged_run(made_up_record(seed=3))
    assert entry.parameters["train.learning_rate"] == 1e-4
    assert entry.parameters["train.seed"] == 3
    assert entry.parameters["features.streams"] == "resnet50"
    assert "train.patience" not in entry.parameters  # None says nothing
    spec = {"name": "n", "train": {"seed": 0}, "hidden": [8, 4], "streams": ["a, b", "c"]}
    assert dict(logged_run(made_up_record(spec=spec)).parameters) == {
        "name": "n",
        "train.seed": 0,
        "hidden": "[8,4]",
        "streams": '["a, b","c"]',
    }


def test_scores_have_the_names_of_splits_and_labels_and_matrices_are_left_out():
    metrics = logged_run(made_up_record(score=0.5)).metrics
    assert metrics["val/accuracy"] == 0.5
    assert metrics["test/macro/f1"] == 0.4
    assert metrics["test/per_class/fear/anger/support"] == 2
    assert metrics["parameters"] == 10
    assert not [name for name in metrics if "confusion" in name]


def test_curves_are_those_of_the_saved_history():
    curves = logged_run(made_up_record()).curves
    assert curves["train_loss"] == [(1, 1.0), (2, 0.5)]
    assert set(curves) == {"train_loss", "val_loss", "val_accuracy", "val_macro_f1"}


def test_tags_say_where_a_run_comes_from():
    record = made_up_record("net", seed=1)
    entry = logged_run(record)
    assert (entry.kind, entry.key, entry.name) == ("run", record.digest, "net, seed 1")
    assert entry.tags == {
        "digest": record.digest,
        "configuration": "net",
        "dataset": "made-up",
        "cache_digest": digest({"resnet50": "1" * 64}),
        "streams": "resnet50",
        "emofuse_version": "0.1.0",
        "device": "cpu",
    }
    reference = made_up_record(spec={**record.spec, "reference": True})
    assert logged_run(reference).kind == "reference"


def test_a_searched_run_has_validation_scores_alone():
    row = {
        "digest": "d" * 64,
        "name": "lbp",
        "fold": 1,
        "seed": 2,
        "spec": {"train": {"seed": 2}},
        "sweep": "small",
        "val_macro_f1": 0.5,
        "val_accuracy": 0.6,
        "val_loss": None,
        "best_epoch": 1,
        "last_epoch": 2,
        "seconds": 1.5,
        "parameters": 9,
        "ended": "epochs",
        "device": "cpu",
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"emofuse": "0.1.0"},
        "history": [{"epoch": 1, "val_loss": 1.0}],
    }
    entry = logged_searched_run(row)
    assert (entry.kind, entry.key, entry.name) == ("searched", "d" * 64, "lbp, seed 2, fold 1")
    scores = {"val/macro_f1": 0.5, "val/accuracy": 0.6}
    assert entry.metrics == scores | {"parameters": 9, "best_epoch": 1, "last_epoch": 2, "seconds": 1.5}
    assert (entry.tags["sweep"], entry.tags["ended"]) == ("small", "epochs")
    assert entry.curves == {"val_loss": [(1, 1.0)]}


def test_a_report_that_changes_is_another_entry_and_without_one_there_is_none(place, records):
    report = place.out / "report"
    first = logged_report(report, "demo", records)
    assert (first.kind, first.name, first.tags["dataset"]) == ("report", "report: demo", "made-up")
    assert [path.name for path in first.files] == ["progression.png", "index.html", "summary.md"]
    assert logged_report(report, "demo", records).key == first.key
    (report / "summary.md").write_text("other")
    assert logged_report(report, "demo", records).key != first.key
    assert logged_report(place.out, "demo", records) is None
