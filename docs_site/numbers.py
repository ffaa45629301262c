"""Write the tables of measured numbers into the pages: `python -m docs_site.numbers`.

A page has a pair of marks, `<!-- numbers: NAME -->` and `<!-- end of numbers -->`. What lies between them is made from
`benchmarks/results/*.json`, so that a number stands in one place only. A test fails while a page is out of date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from docs_site.markdown import ROOT, pages

RESULTS = ROOT / "benchmarks" / "results"
_MARKED = re.compile(r"<!-- numbers: ([\w-]+) -->\n.*?<!-- end of numbers -->", re.DOTALL)
_NONE = "–"
Results = dict[str, Any]


def update(text: str, folder: str) -> str:
    """Return a page with the present numbers between its marks.

    Args:
        text: the page.
        folder: the way from the page to `benchmarks/results`.
    """

    def fresh(found: re.Match[str]) -> str:
        name = found[1]
        if name not in TABLES:
            raise KeyError(f"no table of numbers is named {name!r}; there are: {', '.join(sorted(TABLES))}")
        made = "\n".join(TABLES[name]())
        return f"<!-- numbers: {name} -->\n\n{made.replace('RESULTS/', folder)}\n\n<!-- end of numbers -->"

    return _MARKED.sub(fresh, text)


def _read(name: str) -> Results:
    data: Results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return data


def _source(*names: str) -> str:
    """Return the line that says where numbers come from: command, machine, date, file."""
    parts = []
    for name in names:
        data = _read(name)
        machine, device = data["machine"], data.get("device", "cpu")
        where = f"{machine['cpu']}, {machine['cores']} core{'s' * (machine['cores'] != 1)}"
        if device != "cpu":
            where += f", {data.get('gpu') or machine.get('gpu') or device}"
        parts.append(f"[`{name}.json`](RESULTS/{name}.json): `{data['command']}`, {where}, {data['date']}")
    return f"*{'; '.join(parts)}.*"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]], numbers_from: int = 1) -> list[str]:
    names = list(head)
    rule = ["---"] * numbers_from + ["---:"] * (len(names) - numbers_from)
    lines = [names, rule, *([str(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _score(score: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Return a mean with its interval."""
    if score is None:
        return _NONE
    low, high = score.get("interval") or (score.get("low"), score.get("high"))
    mean = f"{score['mean']:.{digits}f}"
    return mean if low is None else f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _difference(test: Mapping[str, Any]) -> str:
    return f"{_signed(test['mean'])} [{_signed(test['low'])}, {_signed(test['high'])}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _tests(tests: Iterable[Mapping[str, Any]], first: str = "") -> list[str]:
    """Return a table of differences with their intervals and corrected p values."""
    return _table(
        ("Difference", "macro F1", "p, Holm"),
        ((f"{each.get('name', first)} − {each['against']}", _difference(each), _p(each["p_holm"])) for each in tests),
    )


def _heads() -> list[str]:
    data = _read("heads")
    others = {"dataloader_hdf5": "DataLoader over HDF5", "plain_loop": "plain loop", "summed_losses": "summed losses"}
    others |= {"sklearn_mlp": "scikit-learn `MLPClassifier`"}
    rows = []
    for name, each in data["shapes"].items():
        over = each["emofuse_over"]
        values = [f"{over[other]['median']:.1f}" if other in over else _NONE for other in others]
        rows.append((f"{name}, {each['shape']['heads']} at once", *values))
    return [*_table(("Heads", *others.values()), rows), "", _source("heads")]


def _extraction() -> list[str]:
    data = _read("extraction")
    steps = data["steps_ms_per_image_on_one_core"]
    parts = [*_table(("Step", "ms an image, one core"), ((name, f"{value:.2f}") for name, value in steps.items()))]
    speeds = data.get("images_per_s_median", {})
    parts += ["", *_table(("Way", "images/s"), ((name.replace("_", " "), value) for name, value in speeds.items()))]
    over = data.get("six_passes_over_build", {})
    parts += [
        "",
        *_table(
            ("Build", "times as fast as a script of six passes"), ((n.replace("_", " "), v) for n, v in over.items())
        ),
    ]
    faces = data.get("face_mesh_images_per_s_on_all_cores", {})
    if faces:
        parts += ["", *_table(("Face mesh, all cores", "images/s"), faces.items())]
    speed, over_script = (
        data.get(key) for key in ("face_images_per_s_a_core", "plain_script_over_build_of_light_faces")
    )
    if speed is not None:
        parts += ["", f"LBP, landmarks and action units of faces: {speed:.0f} images/s a core, starts included."]
        parts += [
            f"Five light streams of 400 faces: {over_script:.2f} times as fast as a plain script of as many processes."
        ]
    ratio = data.get("one_workers_build_over_its_steps")
    if ratio is not None:
        parts += ["", f"One worker builds the six streams in {ratio:.2f} times the sum of its steps."]
    return [*parts, "", _source("extraction")]


def _read_speed() -> list[str]:
    data = _read("read_speed")
    rows = (
        (task, reader, f"{each['gb_per_s']:.2f}", f"{each['times_the_first']:.2f}")
        for task, readers in data["answers"].items()
        for reader, each in readers.items()
    )
    return [*_table(("Read", "with", "GB/s", "times the first"), rows, 2), "", _source("read_speed")]


def _scale() -> list[str]:
    data = _read("scale")
    steps = ("plan_new", "plan_finished", "open", "open_and_read_labels_ids_status")
    names = ("plan a build, s", "check a finished one, s", "open, s", "open and read labels and status, s")
    rows = []
    for each in data["curve"]:
        done = each["steps"]
        peak = max(step["peak_mb"] for step in done.values())
        seconds = [f"{done[step]['seconds']:.2f}" if step in done else _NONE for step in steps]
        rows.append((f"{each['rows']:,}", *seconds, peak, f"{each['files_in_the_fullest_folder']:,}"))
    head = ("Rows", *names, "memory, MB", "files in the fullest folder")
    return [*_table(head, rows, 0), "", _source("scale")]


def _versus() -> list[str]:
    data = _read("versus")
    rows = (
        (name, f"{each['median']:.2f}", ", ".join(f"{one:.2f}" for one in each["each"]))
        for name, each in data["base_over_this"].items()
    )
    note = f"The former engine is commit {data['base']}, before streams had shapes."
    return [*_table(("Work", "speed over the former", "rounds"), rows), "", note, "", _source("versus")]


def _fuzz() -> list[str]:
    data = _read("fuzz")
    names = ["ok", "no_detection", "unreadable", "failed"]
    rows = ((stream, *(counts.get(name, 0) for name in names)) for stream, counts in data["counts"].items())
    note = f"{data['pictures']:,} mutated pictures; at most {data['peak_mb']:.0f} MB of memory."
    return [*_table(("Stream", *names), rows), "", note, "", _source("fuzz")]


_MODELS = {
    "concat of pipelines/faces.yaml": "`concat` of `pipelines/faces.yaml`",
    "concat, trained again on train + val": "`concat`, `refit: train_val`",
    "concat, mean of three seeds": "`concat`, `ensemble: {seeds: [0, 1, 2]}`",
    "concat, mean of five fold heads": "`concat`, `ensemble: {folds: 5}`",
    "concat, balanced classes": "`concat`, `class_weights: balanced`",
    "concat of pipelines/faces.yaml, votes": "`concat`, learns the votes",
    "kernel_ridge, again on train + val": "`kernel_ridge`, `refit: train_val`",
    "kernel_ridge, again on train + val, votes": "`kernel_ridge`, `refit: train_val`, learns the votes",
    "logistic, again on train + val": "`logistic`, `refit: train_val`",
    "averaged_logistic, again on train + val": "`averaged_logistic`, `refit: train_val`",
    "emofuse sweep best": "**`emofuse sweep best`**",
}


def _accuracy_rows(wanted: Iterable[str] = ()) -> Iterable[tuple[str, ...]]:
    faces, fer = (
        {model["name"]: model for model in _read(f"heads_accuracy_{part}")["models"]} for part in ("faces", "fer2013")
    )
    names = list(wanted) or sorted({**fer, **faces}, key=lambda name: -_mean(fer.get(name), faces.get(name)))
    for name in names:
        cells = []
        for model in (faces.get(name), fer.get(name)):
            if model is None:
                cells += [_NONE, _NONE, _NONE]
                continue
            seconds = model["cpu_s_a_split"]
            cells += [
                _score(model["accuracy"]),
                f"{model['macro_f1']['mean']:.3f}",
                f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}",
            ]
        yield (_MODELS.get(name, name), *cells)


def _mean(fer: Mapping[str, Any] | None, faces: Mapping[str, Any] | None) -> float:
    """Return what rows of the table are sorted by: FER2013 first, then the faces."""
    return fer["accuracy"]["mean"] + 1 if fer else faces["accuracy"]["mean"] if faces else 0


def _heads_accuracy() -> list[str]:
    head = ("Model", "Faces: accuracy", "macro F1", "s", "FER2013: accuracy", "macro F1", "s")
    return [*_table(head, _accuracy_rows()), "", _source("heads_accuracy_faces", "heads_accuracy_fer2013")]


def _beside_sklearn() -> list[str]:
    """Return the short table of the README."""
    wanted = (
        "emofuse sweep best",
        "concat of pipelines/faces.yaml",
        "kernel_ridge, again on train + val",
        "scikit-learn SVC (RBF)",
        "scikit-learn LogisticRegression",
        "LightGBM",
    )
    rows = ((row[0], row[1], row[2], row[4], row[5]) for row in _accuracy_rows(wanted))
    return _table(("Model", "Faces: accuracy", "macro F1", "FER2013: accuracy", "macro F1"), rows)


def _faces() -> list[str]:
    data = _read("faces")
    rows = (
        (
            each["name"],
            f"{each['val_macro_f1']['mean']:.3f} ± {each['val_macro_f1']['sd']:.3f}",
            _score(each["test_macro_f1"]),
            _score(each["test_accuracy"]),
        )
        for each in data["configurations"]
    )
    tests = data["fusion_minus_single_streams"]["macro_f1"]
    head = ("Configuration", "macro F1, validation", "macro F1, test", "accuracy, test")
    first = data["best_fusion_on_validation"]
    return [*_table(head, rows), "", *_tests(tests, first), "", _source("faces")]


def _with_svm(data: Results) -> Iterable[tuple[str, ...]]:
    for each in data["configurations"]:
        svm = each.get("svm_test_macro_f1")
        yield each["name"], _score(each["test_macro_f1"]), f"{svm['mean']:.3f}" if svm else _NONE


def _face_crops() -> list[str]:
    data = _read("face_crops")
    faces = data["with_a_face"]["test_macro_f1"]
    rows = (
        (name, score, svm, f"{faces[name]['mean']:.3f}" if name in faces else _NONE)
        for name, score, svm in _with_svm(data)
    )
    head = ("Configuration", "macro F1", "SVM", "rows with a face")
    seen = {(each["name"], each["against"]): each for each in data["with_a_face"]["comparisons"]}
    tests = []
    for each in data["comparisons"]:
        faces_alone = seen.get((each["name"], each["against"]))
        cells = [_difference(each), _p(each["p_holm"]), _difference(faces_alone) if faces_alone else _NONE]
        tests.append((f"{each['name']} − {each['against']}", *cells))
    compared = _table(("Difference", "macro F1", "p, Holm", "rows with a face"), tests)
    return [*_table(head, rows), "", *compared, "", _source("face_crops")]


def _textures() -> list[str]:
    data = _read("texture_study")
    cost = {"LBP": "lbp", "LBP, 512 bins": "lbp", "HOG": "hog", "Gabor": "gabor", "LPQ": "lpq"}
    tests = {each["name"]: each for each in data["minus_lbp"]}
    rows = []
    for name, score, svm in _with_svm(data):
        ms = data["ms_an_image"].get(cost.get(name, ""), None)
        minus = _difference(tests[name]) if name in tests else _NONE
        p = _p(tests[name]["p_holm"]) if name in tests else _NONE
        rows.append((name, _NONE if ms is None else f"{ms:.2f}", score, svm, minus, p))
    head = ("Texture", "ms a region", "macro F1", "SVM", "minus LBP", "p, Holm")
    return [*_table(head, rows), "", _source("texture_study")]


def _views() -> list[str]:
    data = _read("views")
    rows = []
    for each in data["configurations"]:
        differences = each["difference_to_one_view"].values()
        rows.append((each["name"], _score(each["test_macro_f1"]["1"]), *(_difference(test) for test in differences)))
    counts = list(data["configurations"][0]["difference_to_one_view"])
    head = ("Configuration", "macro F1, 1 view", *(f"{count} views, difference" for count in counts))
    return [*_table(head, rows), "", _source("views")]


def _balance() -> list[str]:
    data = _read("balance")
    rows = []
    for each in data["ways"]:
        cells = []
        for name in ("macro_f1", "accuracy"):
            low, high = each[f"{name}_interval"]
            cells.append(_score({"mean": each[name], "low": low, "high": high}))
            gap = each.get(f"{name}_difference_interval")
            test = gap and {"mean": each[f"{name}_difference"], "low": gap[0], "high": gap[1]}
            cells.append(_difference(test) if test else _NONE)
        rows.append((f"`{each['way']}`", *cells))
    head = ("`train:`", "macro F1", "difference", "accuracy", "difference")
    return [*_table(head, rows), "", _source("balance")]


def _speech() -> list[str]:
    data = _read("speech")
    kinds = list(dict.fromkeys(model["model"] for model in data["models"]))
    scores: dict[str, dict[str, str]] = {}
    for model in data["models"]:
        name = model["name"].removesuffix(", kernel ridge")
        scores.setdefault(name, {})[model["model"]] = _score(model["uar"])
    rows = ((name, *(each.get(kind, _NONE) for kind in kinds)) for name, each in scores.items())
    return [
        *_table(("Streams", *(f"`{kind}`" if " " not in kind else kind for kind in kinds)), rows),
        "",
        _source("speech"),
    ]


def _live() -> list[str]:
    data = _read("live")
    rows = []
    for name, each in data["runs"].items():
        cells = []
        for cores in ("two cores", "one core"):
            low, high = each[cores]["frames/s, lowest and highest pass"]
            cells.append(f"{each[cores]['frames/s']:.0f} ({low:.0f}, {high:.0f})")
        cells.append(f"{each['one core']['CPU ms a frame, all threads']:.1f}")
        goal = each["goal on two cores, frames/s"]
        reached = "reached" if each["two cores"]["frames/s"] >= goal else "missed"
        rows.append((name, *cells, f"{goal}: {reached}"))
    head = (
        "Run",
        "two cores, frames/s (lowest, highest pass)",
        "one core",
        "CPU ms a frame on one core",
        "goal on two cores",
    )
    steps = next(iter(data["runs"].values()))["one core"]["steps_ms"]
    parts = [*_table(head, rows), "", *_table(("Step of the first run", "ms, one core"), steps.items())]
    return [*parts, "", _source("live")]


def _runtimes() -> list[str]:
    """Return the milliseconds an image of each network by runtime, of every machine that was measured."""
    contenders = ("torch float32", "openvino float32", "onnxruntime float32", "torch bfloat16", "openvino bfloat16")
    parts: list[str] = []
    for file in sorted(RESULTS.glob("runtimes_*.json")):
        rows = [
            (network, batch.removeprefix("batch "), *(each[name]["ms_an_image"] for name in contenders))
            for network, batches in _read(file.stem)["networks"].items()
            for batch, each in batches.items()
        ]
        parts += [*_table(("Network", "Batch", *contenders), rows), "", _source(file.stem), ""]
    return parts[:-1]


def _all_results() -> list[str]:
    """Return a table of every results file, so that none is without its command, machine and date."""
    rows = []
    for file in sorted(RESULTS.glob("*.json")):
        if file.stem.endswith("_smoke"):
            continue
        data = _read(file.stem)
        machine = data.get("machine", {})
        where = f"{machine.get('cpu', _NONE)}, {machine.get('cores', _NONE)} cores"
        rows.append(
            (f"[`{file.name}`](RESULTS/{file.name})", f"`{data.get('command', _NONE)}`", where, data.get("date", _NONE))
        )
    return _table(("File", "Command", "Machine", "Date"), rows, 4)


TABLES: dict[str, Callable[[], list[str]]] = {
    "all-results": _all_results,
    "balance": _balance,
    "beside-sklearn": _beside_sklearn,
    "extraction": _extraction,
    "face-crops": _face_crops,
    "faces": _faces,
    "fuzz": _fuzz,
    "heads": _heads,
    "heads-accuracy": _heads_accuracy,
    "live": _live,
    "read-speed": _read_speed,
    "runtimes": _runtimes,
    "scale": _scale,
    "speech": _speech,
    "textures": _textures,
    "versus": _versus,
    "views": _views,
}
"""What can stand between marks, by name."""


def outdated() -> dict[str, str]:
    """Return the pages whose numbers are not the present ones, by name, with their new text."""
    fresh = {}
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = update(text, "benchmarks/results/" if page.parent == ROOT else "../benchmarks/results/")
        if new != text:
            fresh[page.relative_to(ROOT).as_posix()] = new
    return fresh


if __name__ == "__main__":
    for name, text in outdated().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(name)
