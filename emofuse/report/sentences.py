"""Makes the sentences of a report from specs and records, as plain text that its user escapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import FEATURED, ReportedConfiguration, Results, Spread, repeat_of
from emofuse.report.ensembles import ensemble_sentences, refit_sentences
from emofuse.report.foreign import evaluation_of
from emofuse.report.formats import format_range, join_some
from emofuse.report.inputs import SPLITS, StreamUse
from emofuse.report.notes import gather_notes
from emofuse.report.pooled import nested_sentences, pooled_note
from emofuse.report.search import SELECTS
from emofuse.report.uncertainty_notes import interval_notes, ranking_note
from emofuse.specs import EXACT_HEADS, NetworkHeadSpec
from emofuse.specs.heads import ORDERED
from emofuse.specs.nouns import SOUND
from emofuse.specs.train import NEWER
from emofuse.wording import join_names

_SELECTIONS = {
    "macro_f1": "the highest macro F1",
    "accuracy": "the highest accuracy",
    "loss": "the lowest loss",
    "ccc": "the highest CCC",
    "map": "the highest mAP",
}
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}
_NEWER_OPTIONS = {
    "class_weights": "The loss of a row is weighted by its class: {}.",
    "focal_gamma": "The loss of a row is weighted by its uncertainty (focal loss), gamma: {}.",
    "logit_adjustment": "In training, the logits are adjusted by the shares of the classes, tau: {}.",
    "balance": "Training rows are drawn so that classes are even: {}.",
    "schedule": "The learning rate follows a schedule: {}.",
    "warmup": "The learning rate rises at first, in this share of all steps: {}.",
    "clip_norm": "The norm of the gradient of a head is at most (0: without bound): {}.",
    "stream_dropout": "In training, a head does not see a stream of a row with this probability: {}.",
    "mixup": "In training, rows and their losses are mixed in pairs, by shares from Beta(alpha, alpha), alpha: {}.",
    "ema": "The mean of the weights with this decay is validated and kept (0: the weights themselves): {}.",
}
_STEMS = {"temporal": ("sequence", {2, 4}), "spatial": ("map", {3, 4})}
"""Option of a head -> what it turns into vectors, and the number of axes of a row that it is for."""
_MOST_NAMED = 4


def random_weights_warning(results: Results) -> str:
    """Return the warning that streams ran with random weights; an empty text if none did."""
    if not results.random_streams:
        return ""
    affected = [item.label for item in results.configurations if item.random_streams]
    everywhere = len(affected) == len(results.configurations)
    who = "Every configuration uses" if everywhere else f"{join_some(affected)} use{'s' if len(affected) == 1 else ''}"
    return (
        f"The extractors of {join_names(results.random_streams)} ran with random instead of pretrained weights. {who} "
        "at least one of them. These numbers show that the pipeline works; they say nothing about emotion recognition."
    )


def reading_notes(results: Results, uncertainty: Uncertainty) -> list[str]:
    """Return the notes on how to read the table of scores."""
    notes = [_repeats_note(results), *interval_notes(results, uncertainty)]
    if pooled := pooled_note(uncertainty.pooled):
        notes.append(pooled)
    notes += _macro_notes(results)
    if len(results.configurations) > 1:
        notes.append(
            f"Δ is the difference to {results.baseline.label}, taken repeat by repeat where both have the same seeds. "
            "The best value of a column is bold; nothing was chosen by it."
        )
    if any(results.reachable(item) is not None for item in results.configurations):
        notes.append(
            "Reachable is the accuracy to expect from a classifier that reads every cue of its streams without error. "
            "It is known because this dataset is generated. Accuracy on a finite test split scatters around it."
        )
        if cues := results.dataset.get("order_cues"):
            notes.append(
                f"Only the order of the steps of a sequence shows {join_names(cues)}: Reachable counts this for stems "
                f"that know the order ({', '.join(sorted(ORDERED))})."
            )
    if note := ranking_note(results, uncertainty):
        notes.insert(0, note)
    return [*notes, *uncertainty.problems]


def _macro_notes(results: Results) -> list[str]:
    """Return over how many classes macro scores are means: a class without test rows and answers has no score."""
    if not results.target.has_classes:
        return []
    counts = [np.asarray(run.metrics["test"]["confusion"]) for run in results.runs]
    occurs = np.stack([confusion.sum(axis=0) + confusion.sum(axis=1) > 0 for confusion in counts])
    number = Spread.of(occurs.sum(axis=1))
    if number.low == len(results.classes):
        return [f"Macro scores are means over all {len(results.classes)} classes, each with the same weight."]
    absent = [name for name, everywhere in zip(results.classes, occurs.all(axis=0), strict=True) if not everywhere]
    some = f"the classes with test rows or answers ({format_range(number)} of {len(results.classes)})"
    return [f"Macro scores are means over {some}, each with the same weight. Not in every run: {join_some(absent)}."]


def featured_note(results: Results) -> str:
    """Return which configurations have single figures; an empty text if all have."""
    if results.featured == results.configurations:
        return ""
    part = results.target.part
    return (
        f"Of {len(results.configurations)} configurations, {featured_words(results)}. The tables list all of them, and "
        f"per_{part}.csv has the numbers of every {part}."
    )


def featured_words(results: Results) -> str:
    """Return which configurations have single figures, if these are not all."""
    best = best_words(results)
    return best if len(results.featured) == FEATURED else f"{best}, and the baseline"


def best_words(results: Results) -> str:
    """Return by what the configurations with single figures were chosen."""
    return f"the {FEATURED} best by validation {SELECTS[results.select]}"


def empty_stream_notices(results: Results, uses: Iterable[StreamUse]) -> list[str]:
    """Return one notice for each stream that no row has."""
    notices = []
    for use in uses:
        if use.is_empty:
            users = [item.label for item in results.configurations if use.name in item.streams]
            notices.append(
                f"Stream {use.label} has no valid row: none of {use.rows(SPLITS).high:,.0f} rows has features of it. "
                f"{join_some(users)} learned nothing from it."
            )
    return notices


def run_notes(results: Results) -> list[str]:
    """Return the notes of training, each of them once."""
    return gather_notes((item.label, run) for item in results.configurations for run in item.runs)


def method(results: Results) -> list[str]:
    """Return the sentences of the method paragraph."""
    trained = tuple(item for item in results.configurations if item.spec["head"]["kind"] not in EXACT_HEADS)
    return [
        _split_sentence(results),
        *nested_sentences(results),
        *_scaling_sentences(results),
        _head_sentence(results),
        *_stem_sentences(results),
        *(_training_sentences(replace(results, configurations=trained)) if trained else ()),
        *_exact_sentences(results),
        *ensemble_sentences(results),
        *refit_sentences(results),
        _test_sentence(results),
        *_row_rules(results),
    ]


def _test_sentence(results: Results) -> str:
    test = evaluation_of(results)
    if test:
        return f"All of this was done with rows of {test['trained_on']}; no row of {test['tested_on']} chose anything."
    return "The test split chose nothing; it was scored once, with these weights."


def _row_rules(results: Results) -> list[str]:
    """Return which rows and labels count; former versions trained by other rules for rows, and did not record them."""
    rules, noun = results.target.words.rules, results.noun
    if not all("fitted" in stream for run in results.runs for stream in run.streams.values()):
        return list(rules)
    lacking = " on which a stream failed" if noun == SOUND else " without a face, or one on which a stream failed,"
    return [
        (
            f"Rows whose {noun.many} cannot be read are left out. {noun.an.capitalize()}{lacking} keeps its row and "
            "lacks the stream."
        ),
        "A stream that fewer than two training rows have counts as missing in every row.",
        *rules,
    ]


def _repeats_note(results: Results) -> str:
    if all(len(item.runs) == 1 for item in results.configurations):
        return "Each configuration has one run, so that scores have no spread."
    repeats = [repeat_of(run) for run in results.runs]
    splits = {split for split, _ in repeats if split is not None}
    dealt = {split[0] for split in splits if isinstance(split, tuple)}
    differences = []
    for what, values in (
        ("outer fold", {split[1] + 1 for split in splits if isinstance(split, tuple)}),
        ("seed of the split", dealt or {split for split in splits if isinstance(split, int)}),
        ("seed of the training", {training for _, training in repeats}),
    ):
        if len(values) > 1:
            differences.append(f"{what} ({', '.join(map(str, sorted(values)))})")
    return f"Mean ± standard deviation (n − 1) over the repeats, which differ in the {' and the '.join(differences)}."


def _split_sentence(results: Results) -> str:
    # Of a test on other data, the groups are those of the other data, which the split of the training did not know.
    number = 0 if evaluation_of(results) else results.dataset.get("groups", 0)

    def describe(split: Any) -> str:
        if split["kind"] == "official":
            return "the dataset's own split"
        kept = split.get("grouped", True)
        groups = f", which {'keeps' if kept else 'does not keep'} the rows of a group together" if number else ""
        return describe_drawn(split) + groups

    def describe_drawn(split: Any) -> str:
        if split["kind"] == "holdout":
            test = "test rows" if split["test"] == "test" else "validation rows as test rows"
            return f"the dataset's own {test}, with {100 * split['val']:g} % of the other rows drawn for validation"
        if split["kind"] == "outer_folds":
            return (
                f"an outer cross-validation: each of {split['count']} folds is the test split once, and "
                f"{100 * split['val']:g} % of the other rows are validation rows; the dataset's own split is not used"
            )
        shares = "/".join(f"{100 * split[part]:g}" for part in SPLITS)
        return f"a stratified {shares} split into training, validation and test rows"

    counted = f" The dataset has {number:,} group{'s' * (number != 1)}." if number else ""
    return f"Rows follow {_vary(results, 'split', describe)}.{counted}"


def _scaling_sentences(results: Results) -> list[str]:
    sentences = [
        "Each stream's features are standardised with the mean and the deviation of the training rows that have it."
    ]
    if any(stream["kind"] == "action_units" for run in results.runs for stream in run.streams.values()):
        baseline = _vary(results, "features.neutral_label", _describe_baseline)
        sentences.append(f"Facial action units are standardised with {baseline} instead.")
    widths: dict[tuple[str, float], set[int]] = {}
    for run in results.runs:
        for name, stream in run.streams.items():
            if "pca" in stream:
                widths.setdefault((name, stream["pca"]["wanted"]), set()).update(stream["pca"]["components"])
    if widths:
        of_streams = [_describe_components(name, wanted, found) for (name, wanted), found in widths.items()]
        sentences.append(
            "Heads see principal components of the standardised features, fitted on the training rows of each head and "
            f"not whitened: {join_some(of_streams)}."
        )
    return sentences


def _describe_components(name: str, wanted: float, widths: set[int]) -> str:
    if isinstance(wanted, int):
        return f"{wanted} of {name}"
    low, high = min(widths), max(widths)
    return f"{low if low == high else f'{low} to {high}'} of {name}, which hold {100 * wanted:g} % of its variance"


def _describe_baseline(neutral_label: str | None) -> str:
    if neutral_label is None:
        return "the median and the MAD of the training faces"
    return f"the mean and the deviation of the training faces labelled {neutral_label}"


def _head_sentence(results: Results) -> str:
    kinds = {item.spec["head"]["kind"] for item in results.configurations}
    if kinds != {"concat"}:
        several = "The kind of head is" if len(kinds) == 1 else "The kinds of heads are"
        listed = "its parameters are" if len(kinds) == 1 else "their parameters are"
        return f"{several} {join_names(sorted(kinds))}; {listed} listed with each configuration."
    embed_dim, width = _vary(results, "head.embed_dim"), _vary(results, "head.width")
    depth = _vary(results, "head.depth", lambda value: "1 hidden layer" if value == 1 else f"{value} hidden layers")
    dropout = _vary(results, "head.dropout", lambda value: f" with dropout {value:g}" if value else "")
    return (
        f"The head embeds each stream in {embed_dim} values (linear, then batch norm over the rows that have it), "
        "puts a learned vector in the place of a missing stream, joins the embeddings, and ends in "
        f"{depth} of {width} values with ReLU{dropout} and {results.target.words.end.format(len(results.classes))}."
    )


def _stem_sentences(results: Results) -> list[str]:
    """Return how sequences and maps become vectors, if there are any."""
    sentences = []
    for option, (kind, ranks) in _STEMS.items():
        items = tuple(item for item in results.configurations if _has_rank(item, ranks))
        if items:
            stem = _vary(replace(results, configurations=items), f"head.{option}")
            sentences.append(f"A {kind} passes a {option} stem before it is embedded: {stem}.")
    return sentences


def _has_rank(item: ReportedConfiguration, ranks: set[int]) -> bool:
    return any(len(stream.get("used_shape", ())) in ranks for stream in item.runs[0].streams.values())


def _exact_sentences(results: Results) -> list[str]:
    """Return how heads were solved, for the kinds of exact heads that occur."""
    words = results.target.words
    kinds = {item.spec["head"]["kind"] for item in results.configurations}
    sentences = []
    if "logistic" in kinds:
        exact = tuple(item for item in results.configurations if item.spec["head"]["kind"] == "logistic")
        selection = _vary(replace(results, configurations=exact), "train.select", _SELECTIONS.__getitem__)
        sentences.append(
            f"A logistic head is {words.logistic}, solved to convergence for every penalty of a grid; the penalty kept "
            f"has {selection} on the validation rows."
        )
    if "averaged_logistic" in kinds:
        exact = tuple(item for item in results.configurations if item.spec["head"]["kind"] == "averaged_logistic")
        selection = _vary(replace(results, configurations=exact), "train.select", _SELECTIONS.__getitem__)
        sentences.append(
            f"An averaged_logistic head is {words.averaged_logistic}; the penalty of each has {selection} on the "
            "validation rows that have the stream."
        )
    logistic = tuple(
        item for item in results.configurations if item.spec["head"]["kind"] in {"logistic", "averaged_logistic"}
    )
    if logistic:
        sentences += _newer_sentences(replace(results, configurations=logistic), ("class_weights",))
    if "kernel_ridge" in kinds:
        sentences.append(
            "A kernel_ridge head is kernel ridge regression on the mean of one kernel for each stream; "
            f"{words.ridge_choice}."
        )
    return sentences


def _training_sentences(results: Results) -> list[str]:
    optimizer = _vary(results, "train.optimizer", _OPTIMIZERS.__getitem__)
    rate = _vary(results, "train.learning_rate", lambda value: f"{value:g}")
    smoothing = _vary(results, "train.label_smoothing", lambda value: f", label smoothing {value:g}" if value else "")
    decay = _vary(results, "train.weight_decay", lambda value: f", weight decay {value:g}" if value else "")
    batch_size, epochs = _vary(results, "train.batch_size"), _vary(results, "train.epochs")
    patience = _vary(results, "train.patience", _describe_patience)
    selection = _vary(results, "train.select", _SELECTIONS.__getitem__)
    loss = _vary(results, "target.loss", lambda name: results.target.words.losses.get(name, str(name)))
    return [
        (
            f"Training minimises {loss} by {optimizer}: learning rate {rate}{decay}{smoothing}, "
            f"batch size {batch_size}, {epochs} epochs{patience}."
        ),
        f"The weights kept are those of the epoch with {selection} on the validation rows.",
        *_newer_sentences(results),
    ]


def _newer_sentences(results: Results, names: Sequence[str] = tuple(_NEWER_OPTIONS)) -> list[str]:
    """Return one sentence for each of these further options of training that a configuration uses."""
    sentences = []
    for name in names:
        values = {_option(item, f"train.{name}") for item in results.configurations}
        if values != {NEWER[name]}:
            sentences.append(_NEWER_OPTIONS[name].format(_vary(results, f"train.{name}", _describe_option)))
    return sentences


def _describe_option(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe_patience(patience: int | None) -> str:
    return f", stopped after {patience} epochs without a better one" if patience else ""


def _vary(results: Results, path: str, describe: Callable[[Any], str] = str) -> str:
    """Return an option in words; if configurations differ, the most common value first: `64 (32 for a and b)`."""
    users: dict[str, list[str]] = {}
    for item in results.configurations:
        users.setdefault(describe(_option(item, path)), []).append(item.label)
    (main, _), *others = Counter({text: len(labels) for text, labels in users.items()}).most_common()
    if len(others) >= _MOST_NAMED:
        differing = sum(len(users[text]) for text, _ in others)
        return f"{main} ({differing} configurations have one of {len(others)} other values)"
    exceptions = "; ".join(f"{text.strip(' ,') or 'none'} for {_who(users[text])}" for text, _ in others)
    return f"{main} ({exceptions})" if exceptions else main


def _who(labels: list[str]) -> str:
    """Return a few names, or the number of many; the specification of each configuration has its values."""
    return join_names(labels) if len(labels) <= _MOST_NAMED else f"{len(labels)} configurations"


def _option(item: ReportedConfiguration, path: str) -> Any:
    value: Any = {"target": {}, **item.spec}
    *sections, last = path.split(".")
    for key in sections:
        value = value[key]
    if path == "target.loss":  # a class and several labels have one loss, which no option names
        return value.get(last, "")
    if last in _STEMS:  # specs leave out the stems that a head has by default
        return value.get(last, NetworkHeadSpec.model_fields[last].default)
    return value.get(last, NEWER[last]) if last in NEWER else value[last]
