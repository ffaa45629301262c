"""`emofuse probe`: a first look at what the streams of a cache are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emofuse.cli.options import (
    CachePath,
    Labels,
    Numbers,
    Plugins,
    Votes,
    WeightColumn,
    load_given_plugins,
    parse_names,
    target_of_columns,
)
from emofuse.cli.progress import show_progress

if TYPE_CHECKING:
    from emofuse.probe import Probe, ProbedModel
    from emofuse.statistics.bootstrap import Interval

_TITLES = {"accuracy": "accuracy", "macro_f1": "macro F1", "ccc": "CCC", "rmse": "RMSE", "map": "mAP"}
_NOUNS = {"class": "labels", "distribution": "classes", "regression": "columns", "multilabel": "labels"}


def probe(
    cache: CachePath,
    streams: Annotated[
        str, typer.Option(help="Streams to look at, with commas: lbp,resnet50.", show_default="all of the cache")
    ] = "",
    split: Annotated[
        Literal["official", "stratified", "holdout"],
        typer.Option(help="The split whose test rows stay unread: as for `emofuse train`."),
    ] = "official",
    split_seed: Annotated[
        int | None, typer.Option(help="Seed of --split stratified or holdout.", show_default="0")
    ] = None,
    numbers: Numbers = "",
    votes: Votes = "",
    labels: Labels = "",
    weight_column: WeightColumn = "",
    folds: Annotated[
        int | None, typer.Option(min=2, help="Number of folds.", show_default="5, or 3 beyond 3,000 rows")
    ] = None,
    kernel: Annotated[
        Literal["rbf", "linear"],
        typer.Option(
            help="Kernel of a stream. `linear` is exact and takes one pass over the rows: a minute or two for 100,000 "
            "of them. `rbf` also sees what is no linear function of the features."
        ),
    ] = "rbf",
    landmarks: Annotated[
        int, typer.Option(min=2, help="Training rows that RBF kernels are computed to: more are slower and finer.")
    ] = 512,
    pca: Annotated[
        float | None,
        typer.Option(
            help="Look at the principal components of each stream that hold this share of the variance (below 1), or "
            "at this number of them; they are fitted on the training rows of each fold.",
            show_default="all features",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Models to print, the best first; 0 prints all.")] = 12,
    out: Annotated[Path | None, typer.Option(help="Write all models to this JSON file.")] = None,
    plugin: Plugins = None,
) -> None:
    """Score every subset of the streams of a cache within seconds to minutes, without training a network.

    Each subset is scored by kernel ridge regression, in cross-validation over the training and validation rows. The
    test rows are not read. The last lines say which streams and which head to try next.
    """
    if split_seed is not None and split == "official":
        raise typer.BadParameter(
            "the official split has no seed; add --split stratified or --split holdout",
            param_hint="--split-seed",
        )
    load_given_plugins(plugin)

    from emofuse.specs import RunSpec, parse_spec

    asked = {"kind": split} | ({} if split_seed is None else {"seed": split_seed})
    names = parse_names(streams)
    plain = {"name": "probe", "features": {"streams": names or ["-"]}, "split": asked}
    learned = target_of_columns(numbers, votes, labels)
    spec = parse_spec(RunSpec, plain | learned, "probe")

    from emofuse.cache.reader import open_cache
    from emofuse.probe import ProbeOptions, probe_cache

    options = ProbeOptions(streams=tuple(names), folds=folds, kernel=kernel, landmarks=landmarks, pca=_components(pca))
    with show_progress():
        found = probe_cache(open_cache(cache), spec.split, options, spec.target, weight_column or None)
    if out is not None:
        out.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    typer.echo(_text(found, top or len(found.models), learned.get("target")))


def _drawn(found: Probe) -> str:
    return "rows" if found.groups is None else f"{found.groups:,} groups of rows, whole groups at a time"


def _components(pca: float | None) -> float | int | None:
    """Return a share below 1 as it is and a number of components as a whole number."""
    if pca is None or 0 < pca < 1:
        return pca
    if pca < 1 or pca != int(pca):
        raise typer.BadParameter(
            f"must be a share of the variance above 0 and below 1, or a number of components, got {pca:g}",
            param_hint="--pca",
        )
    return int(pca)


def _text(found: Probe, top: int, target: Mapping[str, Any] | None) -> str:
    shown = found.models[:top]
    main = _TITLES[next(iter(found.models[0].scores))]
    lines = [
        (
            f"{found.rows:,} training and validation rows of {len(found.classes)} {_NOUNS[found.kind]}, each answered "
            f"by a model of the other {found.folds - 1} of {found.folds} folds. Test rows were not read."
        ),
        "",
        *_table(shown),
        "",
        f"Intervals hold 95 % of bootstrap resamples of the {_drawn(found)}. Behind: how far below the first {main}.",
    ]
    if found.majority is not None:
        lines.append(f"The most frequent label alone has an accuracy of {found.majority:.3f}.")
    if len(shown) < len(found.models):
        lines.append(f"{len(found.models) - len(shown)} more models: --top 0")
    if found.pooled:
        lines.append(f"Sequences and maps count as their mean here: {', '.join(found.pooled)}.")
    return "\n".join([*lines, "", *_suggestion(found, target)])


def _table(models: tuple[ProbedModel, ...]) -> list[str]:
    rows = [("streams", "model", *(_TITLES[name] for name in models[0].scores), "loss", "behind")]
    rows += [
        (
            " + ".join(model.streams),
            model.model,
            *(f"{score:.3f} {_interval(model.intervals[name])}" for name, score in model.scores.items()),
            f"{model.loss:.3f}",
            "" if model is models[0] else f"{model.behind_best:.3f} {_interval(model.behind_best_interval)}",
        )
        for model in models
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _interval(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _suggestion(found: Probe, target: Mapping[str, Any] | None) -> list[str]:
    """Say which subset and head to try next, as lines of a pipeline file."""
    model, best = found.suggestion, found.models[0]
    names = ", ".join(model.streams)
    if model is best:
        good = "good" if found.majority is None else "accurate"
        why = f"Try {' + '.join(model.streams)} next: no smaller subset is as {good}."
    else:
        why = (
            f"Try {' + '.join(model.streams)} next: the smallest subset whose distance to the best may be chance "
            f"({model.behind_best:.3f} {_interval(model.behind_best_interval)})."
        )
    heads = ["kernel_ridge", "late"] if len(model.streams) > 1 else ["kernel_ridge", "concat"]
    name, streams = " + ".join(model.streams), f"features: {{streams: [{names}]}}"
    learned = f", target: {{kind: {target['kind']}, columns: [{', '.join(target['columns'])}]}}" if target else ""
    options = {"kernel_ridge": ", kernel: linear" if found.kernel == "linear" else ""}
    runs = (
        f"  - {{name: {name} ({head}), {streams}, head: {{kind: {head}{options.get(head, '')}}}{learned}}}"
        for head in heads
    )
    return [why, "", "runs:", *runs]
