"""Renders the page of a report from its templates, with every text of the data escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from emofuse.report import sentences
from emofuse.report.analysis import AnalysisSection
from emofuse.report.choice import choice_caption, choice_sentences, choice_table
from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results, Spread
from emofuse.report.figures import ReportFigure, ReportFigures
from emofuse.report.foreign import MAP_CAPTION, evaluation_of, foreign_sentences, map_table
from emofuse.report.formats import format_range, join_some, show_controls
from emofuse.report.inputs import SPLITS, labels_table, missing_table, stream_uses, streams_table
from emofuse.report.page.assets import plotly, policy, read_part, script, style_sheet
from emofuse.report.page.charts import chart_data
from emofuse.report.page.long_tables import FIRST_ROWS, page_table, script_json
from emofuse.report.page.matrices import Gallery, Matrix, gallery, matrix_of, picture_note, sample_data
from emofuse.report.page.overview import overview
from emofuse.report.page.pictures import Pictures
from emofuse.report.page.reproduce import commands, weights_table
from emofuse.report.page.run_list import FILTERED, run_list
from emofuse.report.page.samples import SampleAnswers, shown_matrices
from emofuse.report.page.value_samples import ValueSamples, value_galleries
from emofuse.report.paper_tables import PaperTable
from emofuse.report.references import references_table
from emofuse.report.section_figures import NORMALISED
from emofuse.report.tables import (
    MOST_ACROSS,
    ReportTable,
    comparisons_table,
    cost_table,
    detail_tables,
    part_table,
    parts_table,
    pooled_table,
    scores_table,
)
from emofuse.report.target_words import target_words
from emofuse.report.uncertainty_notes import comparison_notes
from emofuse.report.vector_text import svg_data_uri
from emofuse.results import RunRecord


@dataclass(frozen=True)
class _Section:
    """The section of the page on one configuration."""

    configuration: ReportedConfiguration
    figures: tuple[ReportFigure, ...]
    table: ReportTable
    caption: str
    spec: str
    matrix: Matrix | None


@dataclass
class _Counter:
    """The numbers of the tables and figures of a page, in their order."""

    counts: dict[str, int] = field(default_factory=dict)

    def next(self, kind: str) -> int:
        """Return the number of the next table or figure."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]


@dataclass(frozen=True)
class _Choice:
    """The section of the page on the search behind the configurations."""

    sentences: str
    table: ReportTable
    caption: str


def render_page(
    results: Results,
    uncertainty: Uncertainty,
    figures: ReportFigures,
    *,
    title: str,
    command: str,
    lettering: str = "",
    further: ReportTable | None = None,
    reference_notes: Sequence[str] = (),
    analysis: Sequence[AnalysisSection] = (),
    papers: Sequence[PaperTable] = (),
    samples: SampleAnswers | None = None,
    values: ValueSamples | None = None,
    pictures: Pictures | None = None,
    numbered: bool = False,
    ranked: bool = False,
) -> str:
    """Return the page as HTML text, with every text from records escaped.

    Args:
        results: the configurations.
        uncertainty: their intervals and tests.
        figures: their figures.
        title: the title of the page.
        command: the command that made the runs; empty if unknown.
        lettering: the sentence on names that figures show by number; empty without such names.
        further: the table of the metrics that were asked for by name; None without such metrics.
        reference_notes: the sentences on the reference models.
        analysis: the sections of the analysis beside the runs (`emofuse explain`).
        papers: the tables for a paper, of which the page shows those on ranks and efficiency.
        samples: the samples behind the confusion matrices; None if they are not known or the target has no classes.
        values: the listed samples of a target without classes; None for one with classes.
        pictures: their thumbnails; None for a page without pictures.
        numbered: whether figures show labels by number, so that tables need these numbers.
        ranked: whether a figure shows labels in the order of their F1, so that tables need these ranks.
    """
    uses = stream_uses(results)
    first = (figures.progression, figures.errors, figures.change, figures.bars, figures.ranks)
    placed = {*first, *figures.differences, figures.search, figures.training, figures.losses}
    placed |= {figure for section in figures.sections for figure in section}
    return _template().render(
        counter=_Counter(),
        papers={table.stem: table for table in papers},
        title=title,
        noun=results.noun.many,
        warning=sentences.random_weights_warning(results),
        overview=overview(results, uncertainty),
        foreign=foreign_sentences(results),
        map_caption=MAP_CAPTION,
        facts=_facts(results),
        notes=[*results.dataset.get("notes", ()), *sentences.run_notes(results)],
        notices=sentences.empty_stream_notices(results, uses),
        tables={
            "scores": scores_table(results, uncertainty),
            "pooled": pooled_table(results, uncertainty),
            "comparisons": comparisons_table(results, uncertainty),
            "details": zip(detail_tables(results, uncertainty), results.target.words.details, strict=True),
            "further": further,
            "references": references_table(results, uncertainty),
            "parts": parts_table(results, numbered=numbered),
            "labels": labels_table(results, numbered=numbered),
            "map": map_table(results),
            "missing": missing_table(uses),
            "streams": streams_table(uses),
            "cost": cost_table(results),
            "runs": run_list(results),
            "weights": weights_table(uses),
        },
        reading_notes=sentences.reading_notes(results, uncertainty),
        reference_notes=reference_notes,
        comparison_notes=comparison_notes(results, uncertainty),
        choice=_choice(results),
        method=" ".join(sentences.method(results)),
        figures=figures,
        featured=sentences.featured_note(results),
        lettering=lettering,
        analysis=analysis,
        sections=_sections(results, uncertainty, figures, samples, numbered=numbered, ranked=ranked),
        further_figures=[figure for figure in figures.all if figure not in placed],
        filtered=FILTERED,
        first_rows=FIRST_ROWS,
        charts=chart_data(results, uncertainty),
        samples=sample_data(results, samples, pictures) if samples else None,
        galleries=_galleries(results, samples, values, pictures),
        voted=bool(samples and samples.votes) or bool(values and values.votes),
        sample_notes=[
            *(samples.problems if samples else ()),
            *(values.problems if values else ()),
            *([note] if (samples or values) and (note := picture_note(pictures)) else []),
        ],
        target=results.target,
        classes=list(results.classes),
        several=len(results.classes) > 1,
        many_labels=len(results.classes) > MOST_ACROSS,
        made_with=_made_with(results.runs),
        trained=_first_and_last(run.created[:10] for run in results.runs),
        commands=commands(results, command),
        policy=policy(),
        styles=Markup(style_sheet()),  # noqa: S704 - a file of the package
        script=Markup(script()),  # noqa: S704 - a file of the package
        plotly=plotly()[0],
    )


@cache
def _template() -> Template:
    """Return the template of the page, compiled once in a process."""
    environment = Environment(
        loader=FunctionLoader(lambda name: read_part("parts", name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "soft": _soft,
        "data_uri": _data_uri,
        "paged": page_table,
        "json": script_json,
        "headline": _headline,
    }
    return environment.get_template("page.html.j2")


def _galleries(
    results: Results, samples: SampleAnswers | None, values: ValueSamples | None, pictures: Pictures | None
) -> list[Gallery]:
    if values is not None:
        return value_galleries(results, values, pictures)
    return gallery(results, samples, pictures) if samples else []


def _sections(
    results: Results,
    uncertainty: Uncertainty,
    figures: ReportFigures,
    samples: SampleAnswers | None,
    *,
    numbered: bool,
    ranked: bool,
) -> list[_Section]:
    with_matrix = shown_matrices(results)
    sections = []
    for item, of_item in zip(results.featured, figures.sections, strict=True):
        shown = of_item
        matrix = matrix_of(item, samples) if item in with_matrix else None
        if matrix is not None:  # its table shows the same percentages as this figure
            shown = tuple(figure for figure in of_item if not figure.stem.startswith(NORMALISED))
        table = part_table(item, results.classes, uncertainty, numbered=numbered, ranked=ranked)
        caption = _part_caption(item, table)
        sections.append(_Section(item, shown, table, caption, json.dumps(item.spec, indent=2), matrix))
    return sections


def _part_caption(item: ReportedConfiguration, table: ReportTable) -> str:
    """Return what the table of the classes, columns or labels of a configuration shows."""
    cells = [cell for column in table.columns for cell in column.cells]
    means = f": means ± standard deviation over {len(item.runs)} repeats" if any(cell.spread for cell in cells) else ""
    intervals = " 95 % intervals are in brackets." if any(cell.interval for cell in cells) else ""
    support = " Support is the number of test rows of one run." if item.target.support == "Support" else ""
    return f"Scores of {item.label} for each {item.target.part} on the test split{means}.{intervals}{support}"


def _choice(results: Results) -> _Choice | None:
    search = results.search
    if search is None:
        return None
    return _Choice(" ".join(choice_sentences(search)), choice_table(search), choice_caption(search))


def _facts(results: Results) -> dict[str, str]:
    """Return the facts on the dataset: term -> value."""
    dataset, runs, words = results.dataset, results.runs_by_split, results.target.words
    counts = {title: Spread.of(run.rows[split]["rows"] for run in runs) for split, title in SPLITS.items()}
    test = evaluation_of(results)
    facts = {
        "Dataset": f"{dataset.get('name', 'unnamed')} (kind {dataset.get('kind', 'unknown')})",
        **({"Trained on": test["trained_on"]} if test else {}),
        **_target_facts(results),
        words.outputs: f"{len(results.classes)}: {_listed(results.classes)}",
        words.rows: ", ".join(f"{title.lower()} {format_range(spread)}" for title, spread in counts.items()),
    }
    if "rows" in dataset:
        facts["Rows in all"] = f"{dataset['rows']:,}"
    if dataset.get("bad_rows"):
        facts["Bad rows"] = f"{dataset['bad_rows']:,}, kept and marked unreadable"
    return facts


def _target_facts(results: Results) -> dict[str, str]:
    """Return what was learned and by which weights, unless it is the label of the manifest."""
    targets = dict.fromkeys(target_words(run.spec["target"]) for run in results.runs if run.spec.get("target"))
    columns = dict.fromkeys(run.spec["weight_column"] for run in results.runs if run.spec.get("weight_column"))
    facts = {"Target": "; ".join(targets)} if targets else {}
    return facts | ({"Weights of rows": f"column {', '.join(columns)}"} if columns else {})


def _listed(classes: Sequence[str]) -> str:
    """Return all labels, or the first of many; the table of labelled rows has all of them."""
    return ", ".join(classes) if len(classes) <= MOST_ACROSS else join_some(classes)


def _made_with(runs: Iterable[RunRecord]) -> dict[str, str]:
    """Return versions, machines and dates of all runs: term -> value."""
    records = list(runs)
    values_of: dict[str, dict[str, None]] = {}
    for record in records:
        for term, value in {**record.versions, **record.machine}.items():
            values_of.setdefault(term, {})[value] = None
    trained = _first_and_last(record.created.replace("T", " ").replace("+00:00", " UTC") for record in records)
    return {term: ", ".join(values) for term, values in values_of.items()} | {"trained": trained}


def _first_and_last(dates: Iterable[str]) -> str:
    ordered = sorted(set(dates))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _finalize(value: object) -> object:
    """Escape control characters in every value of the page, because HTML cannot hold them."""
    if isinstance(value, Markup):
        return Markup(show_controls(value))  # noqa: S704 - escaped already, and no escape of a character is markup
    return _keep_units(show_controls(value)) if isinstance(value, str) else value


def _keep_units(text: str) -> str:
    """Return text in which no line ends between a number and its percent sign; addresses have digits behind theirs."""
    return re.sub(r"(?<=\d) %(?![0-9A-Fa-f]{2})", "\u00a0%", text)


def _soft(text: str) -> Markup:
    """Return escaped text with its places for line ends.

    A line may end after a plus or slash between two parts of a name, but not within `ResNet-50`, nor before the plus of
    `LBP + FAUs`. The letters stay the same, so that a name can be copied into a command.
    """
    breakable = re.sub(r"(?<=\w)([+/])(?=\w)", r"\1<wbr>", _keep_units(str(escape(text))))
    whole = re.sub(r"\w+(?:-\d\w*)+", r'<span class="whole">\g<0></span>', breakable)
    return Markup(re.sub(r" \+(?= )", '<span class="whole"> +</span>', whole))  # noqa: S704 - escaped


def _headline(caption: str) -> str:
    """Return the first sentence of a caption without its full stop."""
    return re.split(r"(?<=[\w)])\.(?: (?=[A-Z])|$)", caption, maxsplit=1)[0]


def _data_uri(figure: ReportFigure) -> str:
    return svg_data_uri(figure.svg)
