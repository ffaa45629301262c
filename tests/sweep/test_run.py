from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_question import CLASSES, HEADS, finished_groups, planted, small_sweep

from emofuse.cache.reader import open_cache
from emofuse.errors import TrainingError
from emofuse.progress import StepState, TrainingState
from emofuse.report.notes import gather_notes
from emofuse.results import ResultPaths, list_runs, read_predictions, read_weights, run_dir
from emofuse.results.progress import read_calls
from emofuse.sweep.options import SweepOptions
from emofuse.sweep.plan import plan_sweep
from emofuse.sweep.rows import ResultsFolder, RunRow
from emofuse.sweep.run import run_sweep
from emofuse.training.together import train_together

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

SCRIPT = Path(__file__).parent / "sweep_script.py"
ON_CPU = SweepOptions(device="cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    return open_cache(write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", **planted()))


@pytest.fixture(scope="module")
def done(cache, tmp_path_factory):
    """A finished sweep that nothing disturbed: its folder, summary and what it said."""
    folder = tmp_path_factory.mktemp("undisturbed")
    said: list[str] = []
    return folder, run_sweep(cache, small_sweep(), folder, ON_CPU, say=said.append), said


def table(folder: Path) -> list[RunRow]:
    """All rows by digest, without what depends on the clock."""
    rows = [replace(row, seconds=0.0, created="") for row in ResultsFolder(folder).rows()]
    return sorted(rows, key=lambda row: row.digest)


def written(folder: Path) -> list[str]:
    """Digests of all rows of all files, a run as often as it was trained."""
    lines = [line for path in finished_groups(folder) for line in path.read_text().splitlines()]
    return sorted(json.loads(line)["digest"] for line in lines)


def files(folder: Path) -> dict[str, bytes]:
    """Content of what does not tell the time: the choice, and weights and predictions of final runs."""
    found = {"choice.md": ResultPaths(folder).choice.read_bytes()}
    for path in sorted(ResultPaths(folder).runs.glob("*/*.safetensors")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


# --- one sweep -------------------------------------------------------------------------------------------------------


def test_one_call_goes_from_a_question_to_a_report(done):
    folder, summary, said = done
    assert (summary.trained, summary.finals.trained, len(summary.finals.records)) == (HEADS, 6, 6)
    assert len(table(folder)) == HEADS == len(written(folder))
    assert summary.report_written
    assert all(path.exists() for path in summary.report)
    assert said[0].startswith("search: 18 configurations, 36 heads trained in ")
    assert said[-1] == f"report: written, {ResultPaths(folder).report / 'index.html'}"
    assert ResultPaths(folder).choice.read_text() == f"# small\n\n{summary.table}"


@pytest.mark.parametrize("final", [{"ensemble": {"folds": 3}}, {"refit": "train_val"}], ids=["folds", "refit"])
def test_finalists_may_be_ensembles_or_trained_again(cache, done, tmp_path, final):
    shutil.copytree(done[0] / "rows", tmp_path / "out" / "rows")
    sweep = small_sweep(final={"best_of": [], "seeds": [0], **final})
    summary = run_sweep(cache, sweep, tmp_path / "out", ON_CPU, say=lambda _: None)
    assert (summary.trained, len(summary.finals.records)) == (0, 2)  # the best and the baseline
    for record in summary.finals.records:
        assert (len(record.heads), len(record.refit)) == ((3, 0) if "ensemble" in final else (0, 1))
    assert run_sweep(cache, sweep, tmp_path / "out", ON_CPU, say=lambda _: None).finals.trained == 0


def test_reference_models_stand_beneath_the_final_runs_and_change_nothing(cache, done, tmp_path):
    folder, first, _ = done
    shutil.copytree(folder, tmp_path / "out")
    said: list[str] = []
    sweep = small_sweep(references="on", compare=[["noise+signal", "signal"]])
    assert plan_sweep(cache, sweep, tmp_path / "out", ON_CPU).splitlines()[0].endswith(" each) and reference models")
    summary = run_sweep(cache, sweep, tmp_path / "out", ON_CPU, say=said.append)
    assert (summary.trained, summary.finals.trained, summary.report_written) == (0, 0, True)
    assert (summary.table, summary.finals.used.name) == (first.table, first.finals.used.name)
    assert [record.name for record in summary.references] == [
        "Logistic regression (all 2 streams)",
        "Averaged logistic regressions (all 2 streams)",
        "Kernel ridge regression (all 2 streams)",
        "Logistic regression (streams of the baseline)",
        "Kernel ridge regression (streams of the baseline)",
        "Logistic regression (best single stream: signal)",
        "Kernel ridge regression (best single stream: signal)",
    ]
    assert sum(line.startswith("reference: ") for line in said) == 7
    note = "The best single stream is signal: its logistic regression has the lowest loss on the validation rows ("
    assert any(line.startswith(f"note: {note}") for line in said)
    text = summary.report.summary_markdown.read_text()
    assert text.index(f"| {first.finals.used.name}") < text.index("| Logistic regression (all 2 streams)")
    assert note in text
    compared, former = (each.report.comparisons_csv.read_text().splitlines() for each in (summary, first))
    assert len(compared) == len(former) + 1 == 4
    names = {item.name.partition(",")[0]: item.name for item in summary.finals.items}
    with_both = csv.DictReader(compared)
    assert [row["baseline"] for row in with_both] == [names["noise"], names["noise"], names["signal"]]
    assert not run_sweep(cache, sweep, tmp_path / "out", ON_CPU).report_written


def test_the_streams_with_the_planted_signal_are_chosen(done):
    _, summary, _ = done
    streams = [each.configuration.run.features.streams for each in summary.choice.finalists]
    assert streams[-1] == ("noise",)
    assert summary.choice.baseline is summary.choice.finalists[-1]
    assert {record.name for record in summary.finals.records} == {
        each.configuration.name for each in summary.choice.finalists
    }
    assert [record.spec["train"]["seed"] for record in summary.finals.records] == [0, 1] * 3
    assert all(record.spec["fold"] is None for record in summary.finals.records)


def test_the_table_shows_validation_and_test(done):
    _, summary, _ = done
    lines = summary.table.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "Configuration",
        "Validation macro F1",
        "Test macro F1",
        "Test accuracy",
        "Parameters",
    ]
    assert "(baseline)" in lines[4]
    assert lines[6] == f"- Chosen, the best of all by its validation score: {summary.finals.used.name}."
    assert "RANDOM" not in summary.table
    error = "± standard error, corrected for the training rows that folds share (Nadeau and Bengio, 2003), over 2 folds"
    assert f"{error}, by which 3 of 18 configurations were chosen." in summary.table
    assert "Test: scored once, when all was chosen (mean ± standard deviation over 2 seeds)." in summary.table


def test_rows_say_what_was_trained(done):
    folder, _, _ = done
    row = table(folder)[0]
    assert (row.sweep, row.device, row.seed, row.ended) == ("small", "cpu", 0, "epochs")
    assert row.fold in {0, 1}
    assert row.settings.keys() == {"streams", "learning_rate", "batch_size"}
    best = row.history[row.best_epoch - 1]
    assert (row.val_macro_f1, row.val_loss) == (best["val_macro_f1"], best["val_loss"])
    assert {row.settings["learning_rate"] for row in table(folder)} == {1e-3, 0.1 + 0.2}


def test_the_folder_says_what_was_planned_and_how_the_call_ended(done):
    (call,) = read_calls(done[0])
    assert (call.kind, call.planned, call.ended) == ("sweep", 6, "done")
    assert call.states["searching"]["total"] == HEADS


def test_the_same_sweep_again_does_nothing_and_says_so(cache, done):
    folder, first, _ = done
    results = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "progress"]
    before = {path: path.stat().st_mtime_ns for path in results}
    said: list[str] = []
    again = run_sweep(cache, small_sweep(), folder, ON_CPU, say=said.append)
    assert (again.trained, again.finals.trained, again.report_written) == (0, 0, False)
    assert again.table == first.table
    assert said[0] == "search: 18 configurations, 36 heads, all trained before or elsewhere: nothing to do"
    assert said[1] == "final runs: 6, scored on the test rows of the split"
    assert all("done before" in line for line in said[2:8])
    notes = [line.removeprefix("note: ") for line in said if line.startswith("note: ")]
    assert notes == gather_notes((record.name, record) for record in again.finals.records)
    assert any("The best epoch is the last one" in note or "no split of this run" in note for note in notes)
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed <= {ResultPaths(folder).choice, folder / "claims" / "lock"}


def test_a_wider_sweep_trains_only_what_is_new(cache, done, tmp_path):
    folder = tmp_path / "wider"
    shutil.copytree(done[0], folder)
    wider = small_sweep(factors={"streams": "all", "learning_rate": [1.0e-3, 1.0e-2, 0.1 + 0.2], "batch_size": [16]})
    summary = run_sweep(cache, wider, folder, ON_CPU)
    assert summary.trained == 3 * 2
    assert len(summary.scored) == 9


def test_progress_is_told(cache, tmp_path):
    states = []

    class Follower:
        def update(self, state):
            states.append(state)

    run_sweep(cache, small_sweep(), tmp_path, ON_CPU, progress=Follower())
    steps = [state.what for state in states if isinstance(state, StepState) and state.ended]
    assert {"planning", "reading features of signal", "scoring", "writing the report"} <= set(steps)
    finals = [state for state in states if isinstance(state, TrainingState) and state.what == "training"]
    assert [(finals[place].runs, finals[place].total) for place in (0, -1)] == [(0, 6), (6, 6)]
    states = [state for state in states if isinstance(state, TrainingState) and state.what == "searching"]
    first, last = states[0], states[-1]
    assert (first.runs, first.total, first.best) == (0, HEADS, None)
    assert (last.runs, last.heads, last.work) == (HEADS, HEADS, 1.0)
    folds = 2 * sum(label >= 0 and split != "test" for label, split in zip(*_labels_and_splits(), strict=True)) // 2
    assert last.rows == 4 * (HEADS // 2) * folds  # epochs x runs of each fold x rows that the two folds train on
    assert last.best[1] == max(state.best[1] for state in states if state.best)
    assert [state.runs for state in states] == sorted(state.runs for state in states)
    assert all(0 <= state.work <= 1 for state in states)


def _labels_and_splits():
    arguments = planted()
    return arguments["labels"], arguments["splits"]


def test_a_plan_is_told_and_nothing_is_trained_or_written(cache, done, tmp_path):
    told = plan_sweep(cache, small_sweep(), tmp_path / "new", ON_CPU).splitlines()
    title = "small: 18 configurations, 36 heads, then at most 6 final runs (3 chosen, 2 seeds each)"
    assert told[:2] == [title, "0 of 36 heads trained before"]
    assert told[-1].startswith("36 heads in 3 structures and 3 groups, about ")
    assert not (tmp_path / "new").exists()
    before = sorted(done[0].rglob("*"))
    told = plan_sweep(cache, small_sweep(), done[0], ON_CPU).splitlines()
    assert told == [title, "36 of 36 heads trained before, nothing to train"]
    assert sorted(done[0].rglob("*")) == before


def test_a_plan_of_what_is_left(cache, done, tmp_path):
    shutil.copytree(done[0] / "rows", tmp_path / "rows")
    finished_groups(tmp_path)[0].unlink()
    told = plan_sweep(cache, small_sweep(), tmp_path, ON_CPU).splitlines()
    assert told[1] == "24 of 36 heads trained before"
    assert told[-1].startswith("12 heads in 1 structures and 1 groups, about ")


def test_the_plan_of_a_search_that_decides_as_it_goes_is_of_its_first_batch(cache, tmp_path):
    tpe = small_sweep(
        factors={"streams": "all", "learning_rate": {"low": 1e-4, "high": 1e-1}},
        search={"kind": "tpe", "trials": 12, "batch": 4, "startup": 4},
    )
    told = plan_sweep(cache, tpe, tmp_path, ON_CPU).splitlines()
    assert told[:3] == [
        "small: 12 configurations, 24 heads, then final runs of what is chosen (2 seeds each)",
        "The search chooses 4 configurations at a time. The first batch:",
        "0 of 8 heads trained before",
    ]


def test_a_plan_without_a_finalist_for_each_subset_counts_the_baseline(cache, tmp_path):
    plan = plan_sweep(cache, small_sweep(final={"best_of": [], "seeds": [0, 1, 2]}), tmp_path, ON_CPU)
    assert plan.splitlines()[0].endswith(", then at most 6 final runs (2 chosen, 3 seeds each)")


def test_random_weights_are_named_with_the_choice(tmp_path, write_cache):
    random = {"kind": "random", "name": None, "sha256": None, "seed": 0}
    path = write_cache(tmp_path / "features.zarr", **planted(), weights={"noise": random})
    spec = small_sweep(factors={"streams": "all"}, final={"seeds": [0]}, folds=None)
    summary = run_sweep(open_cache(path), spec, tmp_path / "out", ON_CPU)
    assert "- RANDOM WEIGHTS in noise: a demonstration, not a finding.\n" in summary.table


# --- what the choice may depend on -----------------------------------------------------------------------------------


def poisoned() -> dict:
    """Arguments of `write_cache`: the planted cache with every test label changed."""
    arguments = planted()
    test = np.array(arguments["splits"]) == "test"
    labelled = test & (arguments["labels"] >= 0)
    return {**arguments, "labels": np.where(labelled, (arguments["labels"] + 1) % len(CLASSES), arguments["labels"])}


def test_nothing_that_is_chosen_depends_on_test_labels(done, tmp_path, write_cache):
    """With every test label changed, the search, the choice and the weights of the final runs are the same bytes."""
    folder, summary, _ = done
    path = write_cache(tmp_path / "poisoned.zarr", **poisoned())
    other = run_sweep(open_cache(path), small_sweep(), tmp_path / "out", ON_CPU)

    assert table(tmp_path / "out") == table(folder)
    assert [each.configuration.name for each in other.choice.ranked] == [
        each.configuration.name for each in summary.choice.ranked
    ]
    for ours, theirs in zip(summary.finals.records, other.finals.records, strict=True):
        assert ours.name == theirs.name
        own = read_weights(run_dir(ResultPaths(folder).runs, ours.digest))
        their = read_weights(run_dir(ResultPaths(tmp_path / "out").runs, theirs.digest))
        assert {name: array.tobytes() for name, array in own.items()} == {
            name: array.tobytes() for name, array in their.items()
        }
        assert ours.history == theirs.history
        assert ours.metrics["val"] == theirs.metrics["val"]
        assert ours.metrics["test"] != theirs.metrics["test"]
        probs = [
            read_predictions(run_dir(ResultPaths(where).runs, record.digest)).probs
            for where, record in ((folder, ours), (tmp_path / "out", theirs))
        ]
        np.testing.assert_array_equal(*probs)


def test_other_validation_labels_are_another_search(done, tmp_path, write_cache):
    """The counterpart: the test above could not fail if rows did not depend on labels at all."""
    arguments = planted()
    seen = (np.array(arguments["splits"]) == "val") & (arguments["labels"] >= 0)
    changed = np.where(seen, (arguments["labels"] + 1) % len(CLASSES), arguments["labels"])
    path = write_cache(tmp_path / "changed.zarr", **{**arguments, "labels": changed})
    run_sweep(open_cache(path), small_sweep(), tmp_path / "out", ON_CPU)
    ours, theirs = ({row.digest for row in table(where)} for where in (done[0], tmp_path / "out"))
    assert not ours & theirs


def test_a_split_without_test_rows_is_told_before_anything_is_trained(tmp_path, write_cache):
    arguments = planted()
    splits = ["train" if split == "test" else split for split in arguments["splits"]]
    path = write_cache(tmp_path / "features.zarr", **{**arguments, "splits": splits})
    with pytest.raises(TrainingError, match=r"no labelled row has split 'test' \(to report on\)"):
        run_sweep(open_cache(path), small_sweep(), tmp_path / "out", ON_CPU)
    assert not (tmp_path / "out").exists()


# --- final runs that diverge -----------------------------------------------------------------------------------------


@pytest.fixture
def diverging(monkeypatch):
    """Lets final runs of these configurations and seeds end as if their loss had not been finite in epoch 2."""

    def plant(*wild: tuple[str, int]):
        def train(data, specs, machine, **options):
            trained = train_together(data, specs, machine, **options)
            return [
                replace(each, result=replace(each.result, weights={}, ended="diverged", best_epoch=0, last_epoch=2))
                if (each.spec.name, each.spec.train.seed) in wild
                else each
                for each in trained
            ]

        monkeypatch.setattr("emofuse.training.runs.train_together", train)

    return plant


@pytest.fixture
def searched(done, tmp_path):
    """A folder with the rows of the undisturbed sweep, and no final run; with the names of its finalists."""
    shutil.copytree(done[0] / "rows", tmp_path / "out" / "rows")
    return tmp_path / "out", [each.configuration.name for each in done[1].choice.finalists]


def test_a_finalist_that_diverges_ends_nothing_and_is_shown(cache, done, searched, diverging):
    folder, names = searched
    diverging((names[1], 1))
    said: list[str] = []
    summary = run_sweep(cache, small_sweep(), folder, ON_CPU, say=said.append)
    assert [len(item.records) for item in summary.finals.items] == [2, 1, 2]
    assert summary.finals.used is summary.finals.items[0]
    assert summary.finals.failed == ()
    (line,) = [line for line in said if "DIVERGED" in line]
    assert re.fullmatch(rf"final run \d/6: {re.escape(names[1])}, seed 1 DIVERGED in epoch 2", line)
    note = f"Final runs that diverged: {names[1]}: 1 of 2 (seed 1 in epoch 2)."
    texts = [summary.table, ResultPaths(folder).choice.read_text(), summary.report.summary_markdown.read_text()]
    assert all(note in text.replace("\\", "") for text in texts)
    row = next(line for line in summary.table.splitlines() if line.startswith(f"| {names[1]}"))
    assert row.split("|")[3].strip() == "1 of 2"
    assert "1 of 2 final runs diverged" in summary.report.page.read_text()
    assert list_runs(ResultPaths(folder).runs) == sorted(summary.finals.records, key=lambda run: (run.name, run.digest))
    for name, ours in files(folder).items():  # the others are as without it
        assert name == "choice.md" or files(done[0])[name] == ours


def test_what_diverged_is_not_trained_again(cache, searched, diverging):
    folder, names = searched
    diverging((names[0], 0), (names[1], 1))
    first = run_sweep(cache, small_sweep(), folder, ON_CPU)
    diverging()
    said: list[str] = []
    again = run_sweep(cache, small_sweep(), folder, ON_CPU, say=said.append)
    assert (again.finals.trained, again.report_written, again.table) == (0, False, first.table)
    assert f"{names[0]}, seed 0 DIVERGED in epoch 2 (known from before)" in " ".join(said)


def test_the_place_of_a_choice_that_diverges_is_taken_by_the_next_in_the_ranking(cache, done, searched, diverging):
    folder, names = searched
    ranked = [each.configuration.name for each in done[1].choice.ranked]
    fallback = next(name for name in ranked if name not in names)
    place = ranked.index(fallback)
    diverging(*((name, 0) for name in ranked[:place]))
    said: list[str] = []
    summary = run_sweep(cache, small_sweep(), folder, ON_CPU, say=said.append)
    assert summary.finals.used.name == fallback
    assert [item.name for item in summary.finals.failed] == ranked[:place]
    assert [item.name for item in summary.finals.items if item.is_fallback] == [fallback]
    assert summary.choice == done[1].choice
    assert any(line.startswith("choice: THE CHOSEN CONFIGURATION DIVERGED in its final runs") for line in said)
    assert any(line.startswith(f"choice: Fallback: {fallback}, the next best by validation score") for line in said)
    chosen, used = (
        next(line for line in summary.table.splitlines() if line.startswith(f"| {name}"))
        for name in (names[0], fallback)
    )
    assert "(fallback" in used
    assert "(fallback" not in chosen
    page = summary.report.page.read_text().replace("<wbr>", "")
    assert "The chosen configuration," in page
    assert f"diverged in its final runs. Next best by validation macro F1 is {fallback}" in page


def test_no_fallback_depends_on_test_labels(cache, done, searched, diverging, tmp_path, write_cache):
    folder, _ = searched
    ranked = [each.configuration.name for each in done[1].choice.ranked]
    diverging(*((name, 1) for name in ranked[:4]))
    ours = run_sweep(cache, small_sweep(), folder, ON_CPU)
    path = write_cache(tmp_path / "poisoned.zarr", **poisoned())
    theirs = run_sweep(open_cache(path), small_sweep(), tmp_path / "other", ON_CPU)
    assert [item.name for item in ours.finals.items] == [item.name for item in theirs.finals.items]
    assert ours.finals.used.name == theirs.finals.used.name == ranked[4]
    assert [run.metrics["test"] for run in ours.finals.records] != [
        run.metrics["test"] for run in theirs.finals.records
    ]


def test_there_is_an_error_and_a_table_if_nothing_can_be_used(cache, done, searched, diverging):
    folder, _ = searched
    ranked = [each.configuration.name for each in done[1].choice.ranked]
    diverging(*((name, 0) for name in ranked))
    with pytest.raises(TrainingError, match=r"'small': no configuration can be used, .* \(see .*choice\.md\)"):
        run_sweep(cache, small_sweep(), folder, ON_CPU)
    assert "Nothing takes its place" in ResultPaths(folder).choice.read_text()
    assert "No configuration can be used" in (ResultPaths(folder).report / "index.html").read_text()
    diverging(*((name, seed) for name in ranked for seed in (0, 1)))
    shutil.rmtree(ResultPaths(folder).runs)
    shutil.rmtree(ResultPaths(folder).report)
    with pytest.raises(TrainingError, match="no configuration can be used"):
        run_sweep(cache, small_sweep(), folder, ON_CPU)
    assert (
        ResultPaths(folder).choice.read_text().count(" diverged |") == 2 * len(ranked) + 1
    )  # with the title of a column
    assert not ResultPaths(folder).report.exists()


# --- interruptions ---------------------------------------------------------------------------------------------------


NEVER = range(0)


@pytest.fixture
def start(cache):
    """Starts the sweep in a process of its own, which waits in the middle of a group while so many are finished; kills
    what is left of it at the end.
    """
    started = []

    def begin(folder: Path, held_at: range = NEVER) -> subprocess.Popen:
        command = [sys.executable, str(SCRIPT), str(cache.path), str(folder), str(held_at.start), str(held_at.stop)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition, timeout_s: float = 600) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def groups(folder: Path) -> int:
    return len(finished_groups(folder))


@pytest.mark.parametrize(("ending", "finished"), [(signal.SIGKILL, 0), (signal.SIGKILL, 2), (signal.SIGINT, 1)])
def test_a_sweep_that_was_ended_in_the_middle_goes_on_and_ends_as_if_it_had_not(
    cache, done, start, tmp_path, ending, finished
):
    folder = tmp_path / "out"
    process = start(folder, held_at=range(finished, HEADS))
    wait_until(lambda: (folder / "claims").is_dir() and groups(folder) >= finished)
    process.send_signal(ending)
    process.wait(timeout=600)
    before = written(folder)
    assert finished <= groups(folder) < groups(done[0])
    resumed = run_sweep(cache, small_sweep(), folder, ON_CPU)
    assert resumed.trained == HEADS - len(before)
    assert table(folder) == table(done[0])
    assert files(folder) == files(done[0])
    assert len(written(folder)) == HEADS


def test_two_processes_share_a_folder_and_train_every_run_once(done, start, tmp_path):
    folder = tmp_path / "out"
    slow = start(folder, held_at=range(1))
    wait_until(lambda: list((folder / "claims").glob("*.json")))
    processes = [slow, start(folder)]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(written(folder)) == len(set(written(folder))) == HEADS
    trained = [int(out.rpartition("trained ")[2]) for out, _ in outputs]
    assert sum(trained) == HEADS
    assert min(trained) > 0
    assert table(folder) == table(done[0])
    assert len(list_runs(ResultPaths(folder).runs)) == 6


def test_what_a_living_process_trains_is_waited_for_and_taken_over_when_it_dies(done, start, tmp_path):
    folder = tmp_path / "out"
    slow = start(folder, held_at=range(HEADS))  # claims the first group and waits
    wait_until(lambda: list((folder / "claims").glob("*.json")))
    quick = start(folder)
    line = quick.stdout.readline()
    assert line == f"waiting for process {slow.pid} on {os.uname().nodename}\n"
    assert groups(folder) == groups(done[0]) - 1
    slow.kill()
    output, errors = quick.communicate(timeout=600)
    assert quick.returncode == 0, errors
    assert output.endswith(f"trained {HEADS}\n")
    assert table(folder) == table(done[0])


def test_a_sweep_goes_on_with_another_memory_budget(cache, done, start, tmp_path):
    folder = tmp_path / "out"
    process = start(folder, held_at=range(1, HEADS))
    wait_until(lambda: groups(folder) >= 1)
    process.kill()
    process.wait()
    summary = run_sweep(cache, small_sweep(), folder, SweepOptions(device="cpu", memory_bytes=100_000))
    assert 0 < summary.trained < HEADS
    assert groups(folder) > groups(done[0])
    ours, theirs = table(folder), table(done[0])
    assert [row.digest for row in ours] == [row.digest for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.val_loss == pytest.approx(other.val_loss, rel=1e-4)
        assert mine.best_epoch == other.best_epoch
