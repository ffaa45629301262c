"""The sentences and the table on how the configurations of a report were chosen by a search."""

from __future__ import annotations

from emofuse.report.formats import UNDEFINED, join_some
from emofuse.report.search import SELECTS, SearchedConfiguration, SearchSummary
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.wording import join_names

RUNNERS_UP = 10
_NAMED = 5  # configurations whose diverged runs are listed one by one
_KINDS = {
    "grid": "The search tried every combination of the factors",
    "random": "The search drew combinations of the factors evenly, each once",
    "best": "The search tried a kernel on subsets of the streams, then further heads on the best subsets",
    "tpe": "Optuna's tree-structured Parzen estimator proposed combinations of the factors",
}


def choice_sentences(search: SearchSummary) -> list[str]:
    """Return the sentences on how the configurations were chosen."""
    count = len(search.configurations)
    diverged = sum(item.diverged for item in search.configurations)
    halved = sum(item.halved for item in search.configurations)
    chosen = sum(item.chosen for item in search.configurations)
    fallbacks = sum(item.fallback for item in search.configurations)
    best = "lowest" if search.select == "loss" else "highest"
    score = f"the {best} validation {SELECTS[search.select]}{_mean_over(search)}"
    tried = f"{count:,} configuration{'s' * (count > 1)}, {search.heads:,} trained head{'s' * (search.heads > 1)}"
    sentences = [f"{_KINDS[search.kind]}: {tried}{_times(search)}."]
    if search.outer_folds:
        return [*sentences, *_nested_sentences(search, score)]
    if halved:
        sentences.append(f"Successive halving ended {halved:,} of them before their last epoch.")
    if diverged:
        sentences.append(f"The loss of {diverged:,} was not finite; a configuration with such a run has no score.")
    if search.best_of:
        sentences.append(f"For every value of {join_names(search.best_of)}, the configuration with {score} was chosen.")
    else:
        sentences.append(f"The configuration with {score} was chosen.")
    finalists = "the chosen one was" if chosen == 1 else f"the {chosen:,} chosen were"
    if fallbacks:
        finalists = f"the {chosen:,} chosen and {fallbacks:,} to take the place of the choice were"
    sentences.append(
        f"The search never saw a test row. Only {finalists} then trained for the final runs and scored on the test "
        "rows of the split, once."
    )
    return [*sentences, *divergence_sentences(search)]


def _nested_sentences(search: SearchSummary, score: str) -> list[str]:
    """Return what a nested search repeated, and how often each configuration was the best."""
    won = sorted((item for item in search.configurations if item.wins), key=lambda item: -item.wins)
    named = ", ".join(f"{item.name} ({item.wins} of {search.outer_folds})" for item in won[:_NAMED])
    if len(won) > _NAMED:
        named += f" and {len(won) - _NAMED} more, each in one or more"
    per = f" for every value of {join_names(search.best_of)}" if search.best_of else ""
    return [
        (
            f"The whole search was repeated inside each of {search.outer_folds} outer folds, on the rows that are not "
            f"tested there, and the configuration with {score} was chosen there{per}. Only what was chosen in a fold "
            "was trained and scored on its test rows, once. A test score is therefore that of the whole procedure, "
            "with its choice, and not that of one configuration."
        ),
        f"Best by validation score in an outer fold: {named or 'none'}.",
    ]


def divergence_sentences(search: SearchSummary) -> list[str]:
    """Return the sentences on final runs that diverged, and on what replaces a choice that did."""
    diverged = [item for item in search.ranked if item.final_diverged]
    if not diverged:
        return []
    sentences = []
    if search.failed:
        first, *more = [item.name for item in search.failed]
        also = f", and so did {join_some(more)}, next in the ranking" if more else ""
        sentences.append(f"THE CHOSEN CONFIGURATION DIVERGED in its final runs and is not used: {first}{also}.")
        if search.used:
            sentences.append(
                f"Fallback: {search.used.name}, the next best by validation score, takes its place. Test scores played "
                "no part in this."
            )
        else:
            sentences.append(
                "Nothing takes its place, because every configuration that can be chosen had a final run that diverged."
            )
    named = "; ".join(
        f"{item.name}: {len(item.final_diverged)} of {item.final_runs} ({join_some(item.final_diverged)})"
        for item in diverged[:_NAMED]
    )
    if len(diverged) > _NAMED:
        named += f"; and those of {len(diverged) - _NAMED} more configurations, see the table"
    sentences.append(
        f"Final runs that diverged: {named}. They have no test score. The scores of their configurations are means "
        "over the other seeds, where there are any."
    )
    return sentences


def choice_table(search: SearchSummary) -> ReportTable:
    """Return the table of the chosen configurations and the best others, by validation score."""
    ranked = list(enumerate(search.ranked, start=1))
    trained = [(rank, item) for rank, item in ranked if item.chosen or item.fallback]
    others = [(rank, item) for rank, item in ranked if not (item.chosen or item.fallback)][:RUNNERS_UP]
    shown = sorted(trained + others, key=lambda pair: pair[0])
    items = [item for _, item in shown]
    return ReportTable(
        (
            TableColumn("Configuration", [Cell(item.name) for item in items], "left"),
            TableColumn("Rank", [Cell(f"{rank:,}") for rank, _ in shown]),
            TableColumn(f"Validation {SELECTS[search.select]}", [_score(item) for item in items]),
            TableColumn("Heads", [Cell(f"{item.runs:,}") for item in items]),
            TableColumn("Ended early", [Cell(_ended(item)) for item in items], "left"),
            TableColumn("Chosen", [Cell(_role(item, search)) for item in items], "left"),
        )
    )


def choice_caption(search: SearchSummary) -> str:
    """Return the caption, which says how many configurations the table shows."""
    rest = sum(not (item.chosen or item.fallback) for item in search.configurations)
    others = f" and the best {min(rest, RUNNERS_UP)} of the {rest:,} others" if rest else ""
    error = f" ± its {search.error_words}" if any(item.error is not None for item in search.configurations) else ""
    return f"The chosen configurations{others}, by validation score{error.rstrip(',')}. All are in search.csv."


def _mean_over(search: SearchSummary) -> str:
    drawn = f", drawn {search.repeats} times" if search.repeats > 1 else ""
    parts = [f"{search.folds} folds{drawn}"] * (search.folds > 1) + [f"{search.seeds} seeds"] * (search.seeds > 1)
    return f", mean over {join_names(parts)}," if parts else ""


def _times(search: SearchSummary) -> str:
    repeated = f", {search.repeats} times" if search.repeats > 1 else ""
    parts = [f"{search.folds}-fold cross-validation{repeated}"] * (search.folds > 1)
    parts += [f"{search.seeds} seeds"] * (search.seeds > 1)
    return f" ({join_names(parts)})" if parts else ""


def _score(item: SearchedConfiguration) -> Cell:
    if item.score is None:
        return Cell(UNDEFINED)
    return Cell(f"{item.score:.4f}", "" if item.error is None else f"{item.error:.4f}")


def _role(item: SearchedConfiguration, search: SearchSummary) -> str:
    """Return `chosen`, `fallback` or both, and how many final runs diverged."""
    if search.outer_folds:
        return f"{item.wins} of {search.outer_folds} outer folds" if item.wins else UNDEFINED
    parts = ["chosen"] * item.chosen + ["fallback"] * (item.fallback or (item.used and bool(search.failed)))
    if item.final_diverged:
        parts.append(f"{len(item.final_diverged)} of {item.final_runs} final runs diverged")
    return ", ".join(parts) or UNDEFINED


def _ended(item: SearchedConfiguration) -> str:
    parts = [f"{item.diverged} diverged"] * (item.diverged > 0) + [f"{item.halved} halved"] * (item.halved > 0)
    return join_names(parts) if parts else UNDEFINED
