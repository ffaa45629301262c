"""Entries are logged once; what a tracker refuses is said at the end, with the command that logs again."""

from __future__ import annotations

import errno
import re
import sys

import pytest

from emofuse.errors import ResultsError, TrackingError
from emofuse.tracking import find_results, log_results, open_trackers


class KeptTracker:
    """A tracker in memory that refuses entries by their number."""

    name = "mlflow"
    where = "the memory"

    def __init__(self, error=None, refused=()):
        self.entries = {}
        self.asked = 0
        self._error, self._refused = error, refused

    def has(self, key):
        return key in self.entries

    def log(self, entry):
        self.asked += 1
        if self.asked in self._refused:
            raise self._error
        self.entries[entry.key] = entry


def test_runs_and_their_report_are_logged_once(place, records):
    tracker, said = KeptTracker(), []
    log_results([tracker], records, place, title="demo", say=said.append)
    assert [entry.name for entry in tracker.entries.values()] == ["net, seed 0", "net, seed 1", "report: demo"]
    log_results([tracker], records, place, title="demo", say=said.append)
    assert tracker.asked == 3
    assert said == [
        "mlflow: 3 of 3 entries logged, the memory",
        "mlflow: 0 of 3 entries logged, 3 logged before, the memory",
    ]


def test_a_run_that_is_given_twice_is_logged_once(place, records):
    tracker = KeptTracker()
    log_results([tracker], [*records, *records], place, with_report=False)
    assert tracker.asked == 2


def test_a_failure_costs_one_entry_and_is_said_with_the_command_that_logs_again(place, records):
    full = OSError(errno.ENOSPC, "No space left on device")
    tracker = KeptTracker(full, refused={1})
    with pytest.raises(TrackingError) as raised:
        log_results([tracker], records, place)
    assert len(tracker.entries) == 2
    assert str(raised.value) == (
        f"1 of 3 runs and reports are not logged to mlflow, the memory (OSError: {full}). All runs are saved in "
        f"{place.runs}. Log them again: emofuse results log {place.out} --to mlflow"
    )
    log_results([tracker], records, place)  # the same again logs what is missing
    assert len(tracker.entries) == 3


def test_a_tracker_that_fails_twice_in_a_row_is_not_asked_again_and_others_are(place, records):
    down, other = KeptTracker(ConnectionError("refused\n" * 200), refused={1, 2, 3}), KeptTracker()
    with pytest.raises(TrackingError, match=r"3 of 3 runs and reports .* \(ConnectionError: refused .*\.\.\.\)"):
        log_results([down, other], records, place)
    assert down.asked == 2
    assert len(other.entries) == 3


def test_an_interrupt_is_no_failure_of_the_tracker(place, records):
    with pytest.raises(KeyboardInterrupt):
        log_results([KeptTracker(KeyboardInterrupt(), refused={1})], records, place)


@pytest.mark.parametrize("name", ["mlflow", "wandb", "tensorboard"])
def test_a_package_that_is_missing_is_named_with_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, f"emofuse.tracking.{name}", raising=False)
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    message = rf"--log-to {name}: its package cannot be imported .*Install it: pip install 'emofuse\[{name}\]'"
    with pytest.raises(TrackingError, match=message):
        open_trackers([name], tmp_path)


def test_a_tracker_that_is_unknown_is_named(tmp_path):
    with pytest.raises(TrackingError, match=r"no tracker 'mlflo', did you mean 'mlflow'\?; known: mlflow, wandb, tens"):
        open_trackers(["mlflo"], tmp_path)


def test_results_are_found_by_their_folder_and_by_their_runs(place):
    assert find_results(place.runs).runs == place.runs
    assert find_results(place.runs).out == place.out
    with pytest.raises(ResultsError, match=re.escape("no such folder. Name the folder of a pipeline or sweep, or")):
        find_results(place.out / "nowhere")
    bare = place.out / "bare"
    place.runs.rename(bare)
    assert (find_results(bare).out, find_results(bare).runs) == (bare, bare)
