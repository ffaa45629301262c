"""Records of saved runs of any version of emofuse: completed, scored from their predictions, or refused by name."""

from __future__ import annotations

import copy
import json
import re

import pytest

from emofuse.errors import ResultsError
from emofuse.metrics.classification import classification_metrics
from emofuse.report import write_report
from emofuse.report.records import complete_record, read_records
from emofuse.results import read_predictions, read_record, rename_run, run_dir
from emofuse.specs import FeaturesSpec, TrainSpec

CLASSES = ("joy", "fear")


@pytest.fixture
def make(make_run):
    def make(name="a", **how):
        return make_run(name, **{"classes": CLASSES, "rows": 100, "epochs": 2, **how})

    make.folder = make_run.folder
    return make


def edit(make, run, change):
    """Changes the run.json of a run in place and returns its path."""
    path = run_dir(make.folder, run.digest) / "run.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def paths_in(value, before=()):
    """Every key of nested data as a tuple, those inside lists by their place: of entries of one form the last."""
    if isinstance(value, list):
        alike = {tuple(entry) if isinstance(entry, dict) else type(entry): place for place, entry in enumerate(value)}
        items = [(place, value[place]) for place in alike.values()]
    else:
        items = value.items() if isinstance(value, dict) else ()
    for key, inner in items:
        if isinstance(value, dict):
            yield (*before, key)
        yield from paths_in(inner, (*before, key))


def remove(data, path):
    for key in path[:-1]:
        data = data[key]
    del data[path[-1]]


def test_test_scores_are_computed_from_the_saved_predictions(make):
    run = make()
    saved = read_predictions(run_dir(make.folder, run.digest))
    expected = classification_metrics(saved.label, saved.probs, CLASSES)

    def change(data):
        data["metrics"]["test"]["macro"] = {"f1": 0.123}  # as another formula had it
        del data["metrics"]["test"]["weighted"]

    edit(make, run, change)
    (found,) = read_records(make.folder)
    assert found.metrics["test"] == expected
    assert found.metrics["val"] == run.metrics["val"]


def test_a_run_that_was_saved_without_test_scores_is_reported_from_its_predictions(make, tmp_path):
    run = make()
    before = write_report(make.folder, tmp_path / "before").summary_csv.read_bytes()
    edit(make, run, lambda data: data["metrics"].pop("test"))
    assert write_report(make.folder, tmp_path / "after").summary_csv.read_bytes() == before


def test_a_run_with_neither_predictions_nor_scores_is_refused(make):
    run = make()
    edit(make, run, lambda data: data["metrics"].pop("test"))
    path = run_dir(make.folder, run.digest) / "predictions.npz"
    path.unlink()
    message = f"no test scores in run.json, and {path}: missing or damaged (.*); delete the folder and train .* again"
    with pytest.raises(ResultsError, match=message.replace("(.*)", r"\(.*\)")):
        read_records(make.folder)


def test_a_run_without_usable_predictions_keeps_the_scores_of_its_record(make):
    run = make()
    (run_dir(make.folder, run.digest) / "predictions.npz").unlink()
    (found,) = read_records(make.folder)
    assert found.metrics["test"] == run.metrics["test"]


def test_options_that_a_run_was_saved_without_have_their_defaults(make):
    run = make(change={"spec": {"name": "a", "features": {"streams": ["resnet50"]}, "head": {"kind": "concat"},
                                "train": {"epochs": 7}, "split": {"kind": "stratified"}}})  # fmt: skip
    found = complete_record(run).spec
    assert found["train"] == {**TrainSpec().model_dump(mode="json"), "epochs": 7}
    assert found["features"] == FeaturesSpec(streams=("resnet50",)).model_dump(mode="json")
    assert found["head"]["embed_dim"] == 512
    assert found["split"]["seed"] == 0


def test_runs_of_two_versions_are_repeats_of_one_configuration(make, tmp_path):
    """The first was saved before there was label smoothing; its default is what it was trained with."""
    first, _ = make("a", seed=0), make("a", seed=1)
    edit(make, first, lambda data: data["spec"]["train"].pop("label_smoothing"))
    assert ",2," in write_report(make.folder, tmp_path / "out").summary_csv.read_text(encoding="utf-8").splitlines()[1]


def test_keys_of_a_later_version_are_passed_over_and_kept(make, tmp_path):
    run = make()

    def change(data):
        data["energy_joules"] = 12.5
        data["spec"]["train"]["warm_up"] = 3
        data["spec"]["head"]["rotary"] = True
        data["history"][0]["val_kappa"] = 0.1
        data["streams"]["resnet50"]["licence"] = "MIT"

    path = edit(make, run, change)
    write_report(make.folder, tmp_path / "out")
    assert rename_run(path.parent, "b").name == "b"
    data = json.loads(path.read_text(encoding="utf-8"))
    assert (data["energy_joules"], data["name"], data["spec"]["name"]) == (12.5, "b", "b")


def test_a_head_that_is_not_installed_is_reported(make, tmp_path):
    run = make()
    edit(make, run, lambda data: data["spec"].update(head={"kind": "of_a_plugin", "rank": 4}))
    page = write_report(make.folder, tmp_path / "out").page.read_text(encoding="utf-8")
    assert "The kind of head is of_a_plugin" in page


def test_a_record_without_a_field_names_it(make):
    run = make()
    path = edit(make, run, lambda data: (data.pop("parameters"), data.pop("classes")))
    message = f"{path}: it lacks classes, parameters; delete the folder and train the run again"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        read_record(path.parent)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data["streams"]["resnet50"].pop("used_dim"), "streams.resnet50.used_dim: is missing"),
        (lambda data: data["streams"].clear(), "streams.resnet50: is missing"),
        (lambda data: data["spec"]["split"].clear(), "spec.split.kind: is missing"),
        (lambda data: data["rows"].pop("val"), "rows.val: is missing"),
        (lambda data: data.update(seconds="3.5"), "seconds: expected a number, got '3.5'"),
        (lambda data: data.update(best_epoch=3), "best_epoch: 3, but history has 2 entries"),
    ],
)
def test_a_record_that_cannot_be_reported_says_which_key_is_wrong(make, change, problem):
    path = edit(make, make(), change)
    message = (
        f"runs that a report cannot be made from: {path}: {problem}. Delete these folders and train the runs again"
    )
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        read_records(make.folder)


def test_many_faulty_records_are_counted(make):
    for name in "abcde":
        edit(make, make(name), lambda data: data["rows"].pop("val"))
    with pytest.raises(ResultsError, match=r"rows\.val: is missing \| and 2 more runs\. Delete these folders"):
        read_records(make.folder)


@pytest.mark.usefixtures("blank_figures")
def test_a_report_of_a_record_without_any_one_key_is_made_or_refused_by_name(make, tmp_path, monkeypatch):
    """Every key of run.json is removed in turn; nothing ends in a KeyError."""
    monkeypatch.setattr("emofuse.report.comparisons.LEAST_RESAMPLES", 20)
    run = make(streams=("lbp", "resnet50"))
    path = run_dir(make.folder, run.digest) / "run.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    write_report(make.folder, tmp_path / "out")
    reported = refused = 0
    for key in list(paths_in(whole)):
        data = copy.deepcopy(whole)
        remove(data, key)
        path.write_text(json.dumps(data), encoding="utf-8")
        try:
            write_report(make.folder, tmp_path / "out")
            reported += 1
        except ResultsError as error:
            assert str(key[-1]) in str(error)  # noqa: PT017 - most keys are not missed
            refused += 1
    assert reported > 60
    assert 20 < refused < 60


def test_a_history_without_validation_scores_is_drawn_without_a_curve(make, tmp_path):
    run = make()
    edit(make, run, lambda data: [entry.pop("val_macro_f1") for entry in data["history"]])
    assert (write_report(make.folder, tmp_path / "out").figures / "training.svg").is_file()


def test_a_digest_that_is_not_there_is_named(make):
    run, _ = make("a"), make("b")
    assert [record.name for record in read_records(make.folder, [run.digest])] == ["a"]
    with pytest.raises(ResultsError, match=f"no run {'f' * 16}; train it again"):
        read_records(make.folder, ["f" * 64])
