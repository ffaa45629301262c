"""The section on how far classes lie apart before and after fusion."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from emofuse.analysis.answers import TestedConfiguration
from emofuse.analysis.feature_space import NEIGHBOURS, Spaces
from emofuse.analysis.plots import plot_maps
from emofuse.analysis.sections.words import random_sentence
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import draw_figure
from emofuse.report.fonts import choose_lettering_of
from emofuse.report.formats import format_difference, format_score
from emofuse.report.tables import Cell, ReportTable, TableColumn


def feature_space_section(tested: TestedConfiguration, found: Spaces) -> AnalysisSection:
    """Return the section on the spaces of a configuration."""
    spaces = found.spaces
    columns = (
        TableColumn("Space", [Cell(each.name) for each in spaces], "left"),
        TableColumn("Rows", [Cell(f"{len(each.rows):,}") for each in spaces]),
        TableColumn("Silhouette", [Cell(format_difference(each.silhouette)) for each in spaces]),
        TableColumn("kNN purity", [Cell(format_score(each.purity)) for each in spaces]),
        TableColumn("Purity by chance", [Cell(format_score(each.by_chance)) for each in spaces]),
    )
    rows: list[dict[str, Any]] = [
        {
            "space": each.name,
            "rows": len(each.rows),
            "silhouette": each.silhouette,
            "knn_purity": each.purity,
            "purity_by_chance": each.by_chance,
        }
        for each in spaces
    ]
    caption = (
        f"How far classes lie apart in each stream of {tested.label} and in the fused vector: silhouette (−1 to "
        "1), and "
        f"the share of the {NEIGHBOURS} nearest rows that have the class of a row."
    )
    lettering = choose_lettering_of(tested.classes)
    names = [lettering.labels.get(name, name) for name in tested.classes]
    figures = []
    for stem, method in (("feature_space", "t-SNE"), ("feature_space_umap", "UMAP")):
        drawn = [each if method == "t-SNE" else replace(each, places=each.umap_places) for each in spaces]
        if any(each.places is not None for each in drawn):
            text = (
                f"Maps of {len(found.label):,} test rows by {method}, one for each stream and the fused vector. Near "
                "rows are alike; distances between clusters, and their sizes, say nothing. A class has one colour "
                "and one marker."
            )
            plot: Any = partial(plot_maps, names, found.label, drawn, random_streams=tested.item.random_streams)
            figures.append(draw_figure(stem, text, plot, lettering))
    fused = next((each for each in spaces if each.name == "fused"), None)
    single = [each for each in spaces if each.name in tested.item.streams]
    sentences = random_sentence(tested.item.random_streams)
    if fused is not None and single:
        best = max(single, key=lambda each: each.purity)
        sentences.append(
            f"{100 * fused.purity:.0f} % of the {NEIGHBOURS} nearest rows in the fused vector have the same class; "
            f"{100 * best.purity:.0f} % in the best single stream, {best.name}, and {100 * fused.by_chance:.0f} % "
            "by chance."
        )
    sampled = f", {len(found.label):,} of {found.of_all:,} drawn at random" if len(found.label) < found.of_all else ""
    sentences.append(
        f"Spaces are those of one run on its test rows{sampled}: standardised features, and the input of the last "
        "layer of "
        "its (first) head. The fused vector is trained to part the classes, which raw features are not."
    )
    if not figures:
        sentences.append("Maps need scikit-learn: pip install 'emofuse[sklearn]'.")
    return AnalysisSection(
        "feature_space",
        "Features before and after fusion",
        sentences,
        [AnalysisTable("feature_space", caption, ReportTable(columns), rows)],
        figures,
        {"configuration": tested.label, "spaces": rows},
    )
