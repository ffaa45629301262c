"""The model card of a run: data, streams, scores, limits, intended use and uses that are out of scope (Markdown).

(Mitchell et al., Model cards for model reporting, FAT* 2019.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import emofuse
from emofuse.errors import WeightsError
from emofuse.onnx_export.export import Exported
from emofuse.predict.models import ChosenModel
from emofuse.report.comparisons import Uncertainty, find_pairs, measure_uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import escape_markdown, format_interval, format_score
from emofuse.report.inputs import labels_table, missing_table, stream_uses, streams_table
from emofuse.report.records import check_records, complete_record
from emofuse.report.sentences import method
from emofuse.report.tables import ReportTable, markdown, part_table
from emofuse.results import RunRecord
from emofuse.specs import is_random
from emofuse.stores import replace_file
from emofuse.weights.registry import find_entry

_USE = (
    (
        "Research on the recognition of emotions that pictures, clips or sounds show or evoke, on data like that of "
        "the training rows; comparison of features and heads."
    ),
)
_NOT = (
    (
        "An emotion that a face, a voice or a picture shows is not the inner state of a person. The labels are what "
        "annotators, actors or uploaders assigned. People who feel the same may look otherwise, and people who look "
        "the same may feel otherwise (Barrett et al., Psychological Science in the Public Interest, 2019)."
    ),
    (
        "The outputs must not be used to decide on persons: not for hiring, dismissal, schooling, credit, insurance, "
        "policing, border control, detection of lies, diagnosis or surveillance. In the European Union, inferring "
        "emotions at work and in education is prohibited with few exceptions (Regulation (EU) 2024/1689, article 5)."
    ),
    "The outputs say nothing on intentions, honesty, character, health, or suitability for anything.",
)


def write_card(model: ChosenModel, path: Path, exported: Exported | None = None) -> str:
    """Write the model card of a run, or of the runs that are averaged, and return its text.

    Args:
        model: the run, or the runs.
        path: the file to write.
        exported: the ONNX file that the card is beside; None for a card alone.

    Raises:
        ResultsError: a record lacks a key that the card is made from.
    """
    runs = model.folders[0].absolute().parent
    check_records(model.records, runs)
    records = [complete_record(record) for record in model.records]
    items = (ReportedConfiguration(records[0].name, tuple(records)),)
    results = Results(items, items[0])
    uncertainty = measure_uncertainty(results, runs, find_pairs(results, (), str(runs)))
    parts = [
        _head(model, results),
        _section("Intended use", _listed(_USE)),
        _section("What must not be inferred", _listed(_NOT)),
        _section("Data", _data(results)),
        _section("Streams", _streams(results)),
        _section("Model", _model(model, results)),
        _section("Scores", _scores(model, results, uncertainty)),
        _section("Limits", _listed(_limits(results))),
        *([_section("ONNX file", _file(exported))] if exported is not None else []),
        _section("Made with", _made_with(records)),
    ]
    text = "\n".join(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text)
    return text


def _head(model: ChosenModel, results: Results) -> str:
    record = model.record
    what = {
        "class": f"one of {len(record.classes)} classes",
        "distribution": f"a distribution over {len(record.classes)} classes",
        "regression": "numbers",
        "multilabel": f"which of {len(record.classes)} labels hold",
    }[record.target_kind]
    warning = ""
    if results.random_streams:
        warning = (
            f"\n> **RANDOM WEIGHTS: a demonstration, not a finding.** The extractors of "
            f"{', '.join(results.random_streams)} ran with random weights.\n"
        )
    names = ", ".join(escape_markdown(name) for name in record.classes)
    mean = f" It is the mean of {len(model.records)} runs." if len(model.records) > 1 else ""
    return (
        f"# Model card: {escape_markdown(record.name)}\n{warning}\n"
        f"The model predicts {what}: {names}.{mean}\n\nRuns: {', '.join(each.digest[:16] for each in model.records)}.\n"
    )


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _listed(sentences: Sequence[str]) -> str:
    return "".join(f"- {escape_markdown(sentence)}\n" for sentence in sentences)


def _data(results: Results) -> str:
    dataset = results.dataset
    facts = [f"Dataset: {dataset.get('name', 'unnamed')} (kind {dataset.get('kind', 'unknown')})."]
    if dataset.get("groups"):
        facts.append(f"It has {dataset['groups']:,} groups, such as speakers, subjects or films.")
    facts += [str(note) for note in dataset.get("notes", ())]
    if any(run.refit for run in results.runs):
        facts.append(
            "The final training has the validation rows among its training rows, so the table counts them twice."
        )
    facts.append("The licence of the dataset is that of its publishers, which emofuse does not know.")
    return f"{_listed(facts)}\n{markdown(labels_table(results))}"


def _streams(results: Results) -> str:
    uses = stream_uses(results)
    licences = [f"Stream {use.label}: {_licence(use.stream)}." for use in uses]
    tables: list[ReportTable] = [streams_table(uses), missing_table(uses)]
    return "\n".join([*(markdown(table) for table in tables), _listed(licences)])


def _licence(stream: Mapping[str, Any]) -> str:
    weights = stream["weights"]
    if not weights:
        return "no weights"
    if is_random(weights):
        return "random weights, without a licence"
    name = weights.get("name") or "from a file"
    try:
        entry = find_entry(str(name))
    except WeightsError:
        return f"weights {name}, whose licence is not in the registry: ask their publisher"
    return f"weights {name} of {entry.source}, licence {entry.licence}"


def _model(model: ChosenModel, results: Results) -> str:
    record = model.record
    heads = sum(max(1, len(each.heads)) for each in model.records)
    parameters = sum(each.parameters for each in model.records)
    size = f"{heads} heads with {parameters:,} parameters in all." if heads > 1 else f"{parameters:,} parameters."
    return _listed([f"Head: {record.spec['head']['kind']}, {size}", *method(results)])


def _scores(model: ChosenModel, results: Results, uncertainty: Uncertainty) -> str:
    item, target = results.configurations[0], results.target
    lines = []
    for split, title in (("val", "validation"), ("test", "test")):
        rows = ", ".join(f"{record.rows[split]['rows']:,}" for record in model.records[:1])
        texts = []
        for score in map(results.in_table, target.scores):
            value = item.metric(score.path, split)
            if value.n == 0:
                continue
            interval = uncertainty.interval(item.label, score.path) if split == "test" else None
            ends = format_interval(interval, decimals=score.decimals)
            texts.append(f"{score.name} {format_score(value.mean, score.decimals)}" + (f" [{ends}]" if ends else ""))
        lines.append(f"On {rows} {title} rows: {', '.join(texts)}.")
    lines.append("Brackets are 95 % bootstrap intervals over the test rows, or over whole groups of them.")
    if len(model.records) > 1:
        lines.append("These are means of the scores of the single runs. The mean of their outputs was not scored.")
    table = markdown(part_table(item, results.classes, uncertainty))
    return f"{_listed(lines)}\nScores of each {target.part} on the test rows:\n\n{table}"


def _limits(results: Results) -> list[str]:
    limits = [
        (
            "The scores hold for rows like the test rows, of the same source. On other data they may be much lower: "
            "the command emofuse evaluate measures it."
        ),
        "Fairness was not tested: there are no scores by age, sex, skin, culture or disability, and they may differ.",
        "Probabilities are not calibrated for other shares of the classes than those of the training rows.",
    ]
    few = [
        name
        for name, spread in zip(results.classes, results.configurations[0].part_metric("support"), strict=True)
        if spread.n and spread.mean < 30
    ]
    if few:
        limits.append(f"Fewer than 30 test rows: {', '.join(few)}. Their scores are rough.")
    notes = dict.fromkeys(note for run in results.runs for note in run.notes)
    return [*limits, *notes]


def _file(exported: Exported) -> str:
    lines = [f"Input {name}: {what}." for name, what in exported.inputs.items()]
    lines += [
        f"Output {exported.output} of {exported.path.name}: float32 batch x classes, in the order above.",
        (
            f"Checked against torch on {exported.rows} rows ({exported.samples} of given samples): the largest "
            f"difference is {exported.difference:.1g}, allowed is {exported.tolerance:g} of the largest output."
        ),
    ]
    return _listed(lines)


def _made_with(records: Sequence[RunRecord]) -> str:
    first = records[0]
    versions = ", ".join(f"{package} {version}" for package, version in first.versions.items())
    return _listed(
        [f"Trained {first.created[:10]} with {versions}.", f"This card was written by emofuse {emofuse.__version__}."]
    )
