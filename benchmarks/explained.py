"""Keep what `emofuse explain` says of real speech and real faces: a gap between groups, categories of a backbone.

    python -m benchmarks.explained

It explains the runs that `benchmarks.speech` and `benchmarks.faces` have left in `emofuse-runs` (`--runs`), and leaves
out what is not there, with its reason. About a minute.

    speech    the scores by sex of the speakers, of the configuration that validation rows choose
    faces     the categories of ImageNet whose score goes along with what SqueezeNet adds to the score of a class
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faces import SHARED
from benchmarks.results_file import RESULTS, write_result
from emofuse.analysis.explain import ExplainOptions, explain
from emofuse.report.analysis import AnalysisSection
from emofuse.weights import import_weights

BACKBONE = "squeezenet1_1"
_STRONGEST = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Explain each folder of runs and write `results/explained_NAME.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("emofuse-runs"), help="folder of `speech` and `faces`")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of `models`")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    for name, read in {"speech": gap_of_speech, "faces": categories_of_faces}.items():
        runs = chosen.runs / name
        if not (runs / "runs").is_dir():
            print(f"{name}: left out, there are no runs in {runs}; first: python -m benchmarks.{name}")
            continue
        print(write_result(f"explained_{name}", read(runs, chosen.data), script="explained", folder=chosen.out))


def gap_of_speech(runs: Path, _: Path) -> dict[str, Any]:
    """Return the scores of women and men, and the gap between them."""
    section = _explain(runs, ExplainOptions(parts=("fairness",)))
    of_sex = section.numbers["attributes"]["sex"]
    return {
        "configuration": section.numbers["model"],
        "attribute": "sex",
        **{key: _rounded(of_sex[key]) for key in ("best", "worst", "gap", "gap_low", "gap_high", "gap_by_chance", "p")},
        "groups": [{key: _rounded(value) for key, value in row.items()} for row in of_sex["groups"]],
        "sentences": list(section.sentences),
    }


def categories_of_faces(runs: Path, data: Path) -> dict[str, Any]:
    """Return the categories that go along most with the contribution of SqueezeNet to the score of each class."""
    weights = data / "models" / f"{BACKBONE}.pth"
    if weights.is_file():
        import_weights(weights)
    section = _explain(runs, ExplainOptions(parts=("attributions",), configuration="SqueezeNet"))
    table = next((each for each in section.tables if each.stem == f"categories_of_{BACKBONE}"), None)
    if table is None:
        raise RuntimeError(f"no categories of {BACKBONE}: {' '.join(section.sentences)}")
    return {
        "configuration": "SqueezeNet",
        "caption": table.caption,
        "strongest": list(_strongest(table.rows)),
        "links": [{key: _rounded(value) for key, value in row.items()} for row in table.rows],
    }


def _strongest(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the categories with the highest correlations of each class, those that go along with it."""
    found = []
    for name in dict.fromkeys(row["class"] for row in rows):
        of_class = sorted((row for row in rows if row["class"] == name), key=lambda row: -row["correlation"])
        found.append({"class": name, "categories": [row["category"] for row in of_class[:_STRONGEST]]})
    return found


def _explain(runs: Path, options: ExplainOptions) -> AnalysisSection:
    """Return the only section of an analysis, which is written beside nothing."""
    with tempfile.TemporaryDirectory() as folder:
        _, (section,) = explain(runs, ExplainOptions(**{**vars(options), "out": Path(folder)}), print)
    return section


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
