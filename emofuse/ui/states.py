"""What the page shows of one place at one moment, in plain data and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from emofuse.progress import format_duration
from emofuse.results.progress import CallState
from emofuse.ui.cache_reader import CacheProgress
from emofuse.ui.readers import Reading, RowFact, RunFact

Activity = Literal["running", "waiting", "done", "failed", "interrupted", "stopped", "unfinished", "idle"]
ACTIVITIES: Mapping[Activity, str] = {
    "running": "running",
    "waiting": "waiting",
    "failed": "failed",
    "interrupted": "interrupted",
    "stopped": "stopped",
    "unfinished": "unfinished",
    "done": "done",
    "idle": "not running",
}
"""The words for what a place does, in the order of the page."""
_LISTED = 3


@dataclass(frozen=True)
class Count:
    """How much of something is done.

    Attributes:
        what: what is counted, in the plural.
        done: how many are done.
        planned: how many are planned; None if that is unknown.
        beside: what else is said of them; empty without anything.
    """

    what: str
    done: int
    planned: int | None
    beside: str = ""

    @property
    def words(self) -> str:
        """What is counted, in the number that fits the last count before it."""
        last = self.done if self.planned is None else self.planned
        return self.what.removesuffix("s") if last == 1 else self.what


@dataclass(frozen=True)
class Best:
    """The best configuration so far, by validation rows.

    Attributes:
        name: its name.
        measure: the name of the score.
        score: its mean.
        over: the number of runs of the mean.
    """

    name: str
    measure: str
    score: float
    over: int


@dataclass(frozen=True)
class ReportLink:
    """A report.

    Attributes:
        path: the page, relative to the folder that is watched, with slashes.
        written: the time of the page, seconds since 1970.
    """

    path: str
    written: float


@dataclass(frozen=True)
class PlaceState:
    """What is known of a place.

    Attributes:
        path: the folder or cache, relative to the folder that is watched, with slashes.
        kind: `pipeline`, `sweep`, `runs`, `cache` or `report`.
        title: its title, or its name.
        activity: what it does.
        counts: what is done of it.
        now: sentences on what is done now.
        best: the best configuration so far; None before the first.
        problems: sentences on what went wrong.
        cache: its cache; None without one.
        reports: its reports.
        written: when something of it was last written, seconds since 1970; 0 if that is unknown.
        unread: the files that later looks will read.
    """

    path: str
    kind: str
    title: str
    activity: Activity
    counts: tuple[Count, ...] = ()
    now: tuple[str, ...] = ()
    best: Best | None = None
    problems: tuple[str, ...] = ()
    cache: CacheProgress | None = None
    reports: tuple[ReportLink, ...] = ()
    written: float = 0.0
    unread: int = 0


@dataclass(frozen=True)
class WorkFiles:
    """What was read of a folder of results.

    Attributes:
        runs: its runs.
        rows: the rows of its search.
        calls: its calls, the newest first.
        claimed: how many runs living processes of this machine have claimed.
        cache: its cache; None without one.
        reports: its reports.
    """

    runs: Reading[RunFact] = field(default_factory=Reading)
    rows: Reading[RowFact] = field(default_factory=Reading)
    calls: Sequence[CallState] = ()
    claimed: int = 0
    cache: CacheProgress | None = None
    reports: tuple[ReportLink, ...] = ()


def work_state(path: str, name: str, files: WorkFiles, now: float) -> PlaceState:
    """Return what is known of a folder of results.

    Args:
        path: the folder, relative to the folder that is watched.
        name: the name of the folder.
        files: what was read of it.
        now: the time, seconds since 1970.
    """
    alive = [call for call in files.calls if call.is_alive(now)]
    call = next(iter(alive or files.calls), None)
    kind = call.kind if call else "sweep" if files.rows.facts else "pipeline" if files.cache else "runs"
    return PlaceState(
        path=path,
        kind=kind,
        title=(call.title or call.name) if call else name,
        activity=_activity(call, files, is_alive=bool(alive)),
        counts=tuple(_counts(call, files, kind)),
        now=tuple(line for each in alive for line in _now(each)),
        # A part of what is there has a best of its own, which may be another one.
        best=None
        if files.runs.unread or files.rows.unread
        else _best_row(files.rows.facts, _selects(files.calls)) or _best_run(files.runs.facts),
        problems=tuple(_problems(call, files, is_alive=bool(alive))),
        cache=files.cache,
        reports=files.reports,
        written=max(
            files.runs.written,
            files.rows.written,
            files.cache.written if files.cache else 0.0,
            *(report.written for report in files.reports),
            *(call.written for call in files.calls),
        ),
        unread=files.runs.unread + files.rows.unread + _unread(files.cache),
    )


def cache_state(path: str, name: str, cache: CacheProgress) -> PlaceState:
    """Return what is known of a cache that belongs to no folder of results."""
    activity: Activity = "running" if cache.builder else "done" if cache.is_complete else "unfinished"
    return PlaceState(
        path=path,
        kind="cache",
        title=name,
        activity=activity,
        problems=cache.problems,
        cache=cache,
        written=cache.written,
        unread=_unread(cache),
    )


def report_state(path: str, name: str, report: ReportLink) -> PlaceState:
    """Return what is known of a report that belongs to no folder of results."""
    return PlaceState(path, "report", name, "done", reports=(report,), written=report.written)


def _unread(cache: CacheProgress | None) -> int:
    return sum(stream.unread for stream in cache.streams) if cache else 0


def _activity(call: CallState | None, files: WorkFiles, *, is_alive: bool) -> Activity:
    if is_alive and call is not None:
        return "waiting" if _training(call).get("waiting_for") else "running"
    if files.claimed or (files.cache is not None and files.cache.builder):
        return "running"
    if call is not None:
        return call.ended or "stopped"
    return "done" if files.reports else "idle"


def _training(call: CallState) -> Mapping[str, Any]:
    """Return the state of the training or search that a call does now; an empty one for other work."""
    return call.states.get(call.now, {}) if call.now in {"searching", "training"} else {}


def _counts(call: CallState | None, files: WorkFiles, kind: str) -> list[Count]:
    runs = [run for run in files.runs.facts if not run.is_reference]
    references = len(files.runs.facts) - len(runs)
    beside = f"and {references} reference model{'s' * (references != 1)}" if references else ""
    counts = []
    if kind == "sweep":
        searching = call.states.get("searching", {}) if call else {}
        # A living call knows its own rows before they are read here.
        searched = max(len(files.rows.facts), _whole(searching.get("runs")) or 0)
        planned = _whole(searching.get("total"))
        if planned is not None and call is not None:
            planned *= call.parts
        counts.append(Count("searched runs", searched, None if planned is None else max(planned, searched)))
        planned = call.planned if call and call.parts == 1 else None  # outer folds plan theirs one after another
        if runs or planned:
            counts.append(Count("final runs", len(runs), None if planned is None else max(planned, len(runs)), beside))
    else:
        counts.append(Count("runs", len(runs), call.planned if call else None, beside))
    return counts


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _now(call: CallState) -> list[str]:
    """Return what a living call does, as far as its last state says."""
    state = call.states.get(call.now, {})
    try:
        lines = [_describe(call.now, state)]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        lines = []
    waiting = state.get("waiting_for") or ()
    if waiting:
        lines.append(f"Waiting for {' and '.join(map(str, waiting))}.")
    return [line for line in lines if line]


def _describe(kind: str, state: Mapping[str, Any]) -> str:
    """Return a sentence on a state of `emofuse.progress` in plain data."""
    if kind == "step":
        done = f": {state['done']:,} of {state['total']:,} {state['unit']}" if state["total"] and state["unit"] else ""
        return f"{state['what'].capitalize()}{done}." if not state["ended"] else ""
    if kind == "building":
        parts = [f"Extracting: {state['rows']:,} of {state['total']:,} {state['noun']}"]
        if state["rows"] and state["seconds"]:
            rate = state["rows"] / state["seconds"]
            left = format_duration((state["total"] - state["rows"]) / rate)
            parts += [f"{rate:.1f} {state['noun']}/s", f"{left} left"]
        return ", ".join(parts) + "."
    if kind not in {"searching", "training"}:
        return ""
    parts = ["Searching" if kind == "searching" else "Training"]
    if state["epochs"]:
        parts.append(f"epoch {state['epoch']} of {state['epochs']}")
    if state["losses"]:
        parts.append("training loss {:.3f}, validation loss {:.3f}".format(*state["losses"]))
    if state["heads"] and state["seconds"]:
        parts.append(f"{state['heads'] / state['seconds']:.1f} heads/s")
    if state["work"]:
        parts.append(f"{format_duration(state['seconds'] * (1 - state['work']) / state['work'])} left")
    return ", ".join(parts) + "."


def _selects(calls: Sequence[CallState]) -> str | None:
    """Return the name of the score that the newest sweep selects by."""
    words = {"macro_f1": "macro F1", "accuracy": "accuracy", "loss": "loss", "ccc": "mean CCC", "map": "mAP"}
    selects = (call.states.get("searching", {}).get("select") for call in calls)
    return next((words[select] for select in selects if isinstance(select, str) and select in words), None)


def _best_row(rows: Sequence[RowFact], select: str | None) -> Best | None:
    """Return the best configuration of a search, among those with as many runs as any."""
    if not rows:
        return None
    seen = Counter(measure for row in rows for measure in row.scores)
    measure = select or next((name for name in ("macro F1", "mean CCC", "mAP", "loss") if seen[name]), "loss")
    of_configuration: dict[str, list[RowFact]] = {}
    for row in rows:
        of_configuration.setdefault(row.configuration, []).append(row)
    most = max(map(len, of_configuration.values()))
    means = {
        key: fmean(row.scores[measure] for row in own)
        for key, own in of_configuration.items()
        if len(own) == most and all(measure in row.scores and not row.is_diverged for row in own)
    }
    return _best(means, {key: own[0].name for key, own in of_configuration.items()}, measure, most, measure != "loss")


def _best_run(runs: Sequence[RunFact]) -> Best | None:
    """Return the best configuration of a pipeline by the mean over its runs; reference models are left out."""
    of_name: dict[tuple[str, str], list[RunFact]] = {}
    for run in runs:
        if run.score is not None and not run.is_reference:
            of_name.setdefault((run.measure, run.name), []).append(run)
    measures = {measure for measure, _ in of_name}
    if len(measures) != 1:
        return None  # runs of several targets have no score in common
    means = {name: fmean(run.score or 0.0 for run in own) for (_, name), own in of_name.items()}
    (measure,) = measures
    first = next(iter(of_name.values()))[0]
    best = _best(means, {name: name for name in means}, measure, 0, first.larger_is_better)
    return best and Best(best.name, best.measure, best.score, len(of_name[measure, best.name]))


def _best(
    means: Mapping[str, float], names: Mapping[str, str], measure: str, over: int, larger_is_better: bool
) -> Best | None:
    if not means:
        return None
    key = max(means, key=lambda each: means[each] if larger_is_better else -means[each])
    return Best(names[key], measure, means[key], over)


def _problems(call: CallState | None, files: WorkFiles, *, is_alive: bool) -> list[str]:
    problems = []
    if call is not None and not is_alive:
        if call.ended == "failed":
            problems.append(call.error or "It ended with an error.")
        elif call.ended == "interrupted":
            problems.append("It was interrupted. Finished work is kept; the same command continues from there.")
        elif call.ended is None:
            problems.append(
                f"Its process ({call.pid} on {call.host}) is gone without having ended: it was killed, or the machine "
                "stopped. Finished work is kept; the same command continues from there."
            )
    for number, what in ((files.rows.diverged, "searched run"), (files.runs.diverged, "run")):
        if number:
            problems.append(f"{number} {what}{'s' * (number != 1)} diverged.")
    unreadable = [*files.runs.problems, *files.rows.problems, *(files.cache.problems if files.cache else ())]
    problems += unreadable[:_LISTED]
    if len(unreadable) > _LISTED:
        problems.append(f"{len(unreadable) - _LISTED} more files cannot be read.")
    return problems
