"""The pages of the Python reference: which modules users call, and in which order."""

from __future__ import annotations

from pathlib import Path

from docs_site.spec_tables import spec_tables

SPECS = (
    "Every key that pipelines, sweeps and cache specs may have. Unknown keys are errors, and an error lists all faults "
    "of a file."
)
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "api.md": (
        "Python: caches and datasets",
        "`emofuse` itself has `build_cache`, `open_cache`, `read_dataset`, `CacheSpec` and `CustomStreamSpec`.",
        (
            "emofuse.cache.reader",
            "emofuse.cache.cached_stream",
            "emofuse.datasets",
            "emofuse.datasets.manifest",
            "emofuse.extraction",
            "emofuse.status",
            "emofuse.errors",
        ),
    ),
    "api-training.md": (
        "Python: training and prediction",
        "What `emofuse train`, `run`, `predict`, `evaluate` and `export` call.",
        (
            "emofuse.estimators",
            "emofuse.features",
            "emofuse.training.runs",
            "emofuse.results",
            "emofuse.predict.predictor",
            "emofuse.onnx_export",
            "emofuse.report",
        ),
    ),
    "api-statistics.md": (
        "Python: metrics and statistics",
        "They need NumPy and SciPy alone.",
        (
            "emofuse.metrics",
            "emofuse.statistics",
            "emofuse.analysis.shapley",
        ),
    ),
    "api-plugins.md": (
        "Python: kinds of your own",
        "Base classes and checks of streams, heads, datasets and metrics: see [kinds of your own](plugins.md).",
        (
            "emofuse.streams.base",
            "emofuse.specs.heads",
            "emofuse.heads.layers",
            "emofuse.datasets.rows",
            "emofuse.metrics.targets",
            "emofuse.testing",
        ),
    ),
}
"""Title, introduction and modules of each page."""


def write_api_pages(target: Path) -> None:
    """Write the pages, whose text mkdocstrings makes of the docstrings."""
    for name, (title, introduction, modules) in PAGES.items():
        parts = [f"# {title}", introduction, *(f"## `{module}`\n\n::: {module}" for module in modules)]
        (target / name).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (target / "specs.md").write_text(f"# Specs\n\n{SPECS}\n\n{spec_tables()}\n", encoding="utf-8")
