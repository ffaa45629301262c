"""Reference models: on all streams and those of the baseline, left out where they cannot be solved, never an error."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from emofuse.cache.reader import open_cache
from emofuse.errors import ResultsError
from emofuse.results import (
    list_runs,
    read_predictions,
    read_reference_notes,
    read_weights,
    run_dir,
    write_reference_notes,
)
from emofuse.specs import EnsembleSpec, RunSpec, parse_spec
from emofuse.training import references
from emofuse.training.references import SINGLES, plan_references, train_references
from emofuse.training.runs import train_run

CLASSES = ("joy", "fear", "calm")
ROWS = 120
NAMES = [
    "Logistic regression (all 3 streams)",
    "Averaged logistic regressions (all 3 streams)",
    "Kernel ridge regression (all 3 streams)",
    "Logistic regression (streams of the baseline)",
    "Kernel ridge regression (streams of the baseline)",
]
NOTE = "The best single stream is net: its logistic regression has the lowest loss on the validation rows ("


def planted():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, ROWS)
    faces = np.where(rng.random(ROWS) < 0.2, 2, 1).astype(np.uint8)
    everywhere = np.ones(ROWS, np.uint8)
    signal = (np.eye(3)[labels] * 3 + rng.normal(size=(ROWS, 3))).astype(np.float16)
    streams = {
        "net": ("backbone", signal, everywhere),
        "action_units": ("action_units", rng.normal(5, 2, size=(ROWS, 30)).astype(np.float32), faces),
        "lbp": ("lbp", rng.random((ROWS, 512)).astype(np.float32), faces),
    }
    splits = np.array(["train", "train", "train", "val", "test"] * (ROWS // 5))
    return labels, splits, streams


@pytest.fixture
def new_cache(tmp_path, write_cache):
    def write(name="features", **changes):
        labels, splits, streams = (changes.get(key, value) for key, value in zip(KEYS, planted(), strict=True))
        return open_cache(write_cache(tmp_path / f"{name}.zarr", CLASSES, labels, list(splits), streams))

    return write


KEYS = ("labels", "splits", "streams")


@pytest.fixture
def cache(new_cache):
    return new_cache()


def runs_of(*pairs, **options):
    """Runs of (name, streams), each with two seeds."""
    return [
        parse_spec(
            RunSpec, {"name": name, "features": {"streams": streams}, "train": {"seed": seed}, **options}, "test"
        )
        for name, streams in pairs
        for seed in (4, 5)
    ]


RUNS = runs_of(("net", ["net"]), ("faces", ["lbp", "action_units"]))


def test_they_have_all_streams_and_those_of_the_baseline_once_for_each_split(cache):
    plan = plan_references(cache, RUNS, "net")
    assert [run.name for run in plan.runs] == NAMES
    assert plan.notes == ()
    assert [run.features.streams for run in plan.runs] == [("net", "lbp", "action_units")] * 3 + [("net",)] * 2
    assert {(run.reference, run.train.seed, run.train.select) for run in plan.runs} == {(True, 4, "loss")}
    splits = [{"kind": "stratified", "seed": seed} for seed in (1, 2)]
    of_splits = [run for split in splits for run in runs_of(("net", ["net"]), split=split)]
    alone = plan_references(cache, of_splits, "net").runs
    assert [(run.name, run.split.seed) for run in alone] == [
        ("Logistic regression", 1), ("Logistic regression", 2),
        ("Kernel ridge regression", 1), ("Kernel ridge regression", 2),
    ]  # fmt: skip


def test_they_take_variants_split_fold_and_choice_from_the_runs(cache):
    faces = parse_spec(
        RunSpec,
        {"name": "faces", "features": {"streams": {"lbp": {"bins": 128, "pca": 0.9}, "action_units": {"count": 15}}}},
        "test",
    )
    options = {"train": {"select": "macro_f1"}, "split": {"kind": "stratified", "seed": 3}, "refit": "train_val"}
    net = parse_spec(RunSpec, {"name": "net", "features": {"streams": ["net"]}, **options}, "test")
    wide = plan_references(cache, [net, faces], "net").runs[0]
    assert dict(wide.features.factors) == {"lbp_bins": 128, "action_units": 15}
    assert wide.features.variants == {"lbp": {"pca": 0.9}}
    assert (wide.train.select, wide.split, wide.refit) == ("macro_f1", net.split, "train_val")
    bag = net.model_copy(update={"refit": "none", "ensemble": EnsembleSpec(folds=3)})
    plan = plan_references(cache, [bag, faces], "net")
    assert {(run.ensemble, run.refit) for run in (*plan.runs, *plan.singles)} == {(None, "train_val")}  # the same rows


def test_streams_that_are_no_vectors_are_left_out_and_named(tmp_path):
    shapes = {"net": (3,), "lbp": (512,), "maps": (2, 3, 3)}
    streams = {
        name: SimpleNamespace(kind="backbone", layout=SimpleNamespace(shape=shape)) for name, shape in shapes.items()
    }
    cache = SimpleNamespace(streams=streams)
    plan = plan_references(cache, runs_of(("maps", ["maps"]), ("net", ["net", "lbp"])), "maps")
    assert plan.notes == ("Reference models take vectors alone; they are solved without maps.",)
    assert {run.features.streams for run in plan.runs} == {("net", "lbp")}
    assert plan.runs[0].name == "Logistic regression (all 2 streams)"
    nothing = plan_references(cache, runs_of(("maps", ["maps"])), "maps")
    assert nothing.runs == ()
    assert nothing.notes[0].startswith("There is no reference model: these models take vectors alone")
    assert train_references(cache, nothing, tmp_path) == ([], list(nothing.notes))


def test_they_are_runs_beside_the_others_and_are_solved_once(cache, tmp_path):
    plan = plan_references(cache, RUNS, "net")
    said = []
    records, notes = train_references(cache, plan, tmp_path, device="cpu", on_run=lambda *each: said.append(each[1]))
    (note,) = notes
    assert note.startswith(NOTE)
    assert read_reference_notes(tmp_path) == notes
    assert [record.name for record in records] == NAMES
    assert all(record.spec["reference"] for record in records)
    assert said == [True] * 5
    again, _ = train_references(cache, plan, tmp_path, device="cpu", on_run=lambda *each: said.append(each[1]))
    assert [record.digest for record in again] == [record.digest for record in records]
    assert said[5:] == [False] * 5
    plain, trained_now = train_run(cache, plan.runs[2].model_copy(update={"reference": False}), tmp_path, device="cpu")
    assert trained_now  # a configuration of the same model is a run of its own
    assert "reference" not in plain.spec
    ours, theirs = (read_predictions(run_dir(tmp_path, each.digest)).probs for each in (records[2], plain))
    assert np.array_equal(ours, theirs)


def test_the_best_single_stream_is_chosen_on_validation_rows(cache, tmp_path):
    """The baseline has noise alone. Of the single streams, the one with the signal is best, and only it is shown."""
    runs = runs_of(("faces", ["action_units"]), ("wide", ["lbp", "net"]))
    records, notes = train_references(cache, plan_references(cache, runs, "faces"), tmp_path, device="cpu")
    words = "(best single stream: net)"
    assert [record.name for record in records][3:] == [
        "Logistic regression (streams of the baseline)",
        "Kernel ridge regression (streams of the baseline)",
        f"Logistic regression {words}",
        f"Kernel ridge regression {words}",
    ]
    assert [list(record.spec["features"]["streams"]) for record in records[-2:]] == [["net"], ["net"]]
    assert {record.digest for record in records} == {record.digest for record in list_runs(tmp_path)}
    losses = {}
    for record in list_runs(tmp_path / SINGLES):
        (stream,) = record.spec["features"]["streams"]
        losses[stream] = record.history[record.best_epoch - 1]["val_loss"]
    assert min(losses, key=losses.get) == "net"
    second = sorted(losses, key=losses.get)[1]
    assert notes == [f"{NOTE}{losses['net']:.3f}; {second} follows with {losses[second]:.3f})."]


def test_former_notes_are_replaced(cache, tmp_path):
    write_reference_notes(tmp_path, ["Former."])
    train_references(cache, plan_references(cache, runs_of(("net", ["net"])), "net"), tmp_path, device="cpu")
    assert read_reference_notes(tmp_path) == []
    (tmp_path / "references.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ResultsError, match=r"references\.json: damaged \(TypeError.*\); delete it, the next run"):
        read_reference_notes(tmp_path)


def test_a_model_that_cannot_be_solved_is_left_out_with_the_reason(cache, tmp_path, monkeypatch):
    solve = references.train_runs

    def without_memory(cache, specs, runs, **options):
        if any(spec.head.kind == "kernel_ridge" and len(spec.features.streams) > 1 for spec in specs):
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return solve(cache, specs, runs, **options)

    monkeypatch.setattr(references, "train_runs", without_memory)
    records, notes = train_references(cache, plan_references(cache, RUNS, "net"), tmp_path, device="cpu")
    assert [record.name for record in records] == [name for name in NAMES if name != NAMES[2]]
    note = notes[1]
    assert read_reference_notes(tmp_path) == notes
    assert note.startswith("Kernel ridge regression (all 3 streams) is left out, because it could not be solved: ")
    assert note.endswith(": DefaultCPUAllocator: not enough memory.")


def test_too_little_memory_leaves_them_out_and_says_how_much_they_need(cache, tmp_path):
    plan = plan_references(cache, RUNS, "net")
    records, notes = train_references(cache, plan, tmp_path, device="cpu", memory_bytes=1)
    assert records == []
    singles, others = notes
    assert singles.startswith(
        "Logistic regression (net alone), Logistic regression (lbp alone) and Logistic regression (action_units alone) "
        "are left out, because they could not be solved: 0 GB hold no"
    )
    assert all(name in others for name in NAMES)


def test_poisoned_test_labels_and_features_change_nothing_that_is_chosen(new_cache, tmp_path):
    labels, splits, streams = planted()
    test = splits == "test"
    kind, features, status = streams["net"]
    others = {**streams, "net": (kind, np.where(test[:, None], 100, features).astype(np.float16), status)}
    (solved, notes), (others_solved, other_notes) = (
        train_references(cache, plan_references(cache, RUNS, "net"), tmp_path / "runs", device="cpu")
        for cache in (new_cache(), new_cache("wrong", labels=np.where(test, 0, labels), streams=others))
    )
    assert notes == other_notes
    for one, other in zip(solved, others_solved, strict=True):
        assert one.digest != other.digest
        assert one.metrics["test"] != other.metrics["test"]
        assert (one.history, one.best_epoch) == (other.history, other.best_epoch)
        weights, found = (read_weights(run_dir(tmp_path / "runs", each.digest)) for each in (one, other))
        assert all(np.array_equal(array, found[name]) for name, array in weights.items())
