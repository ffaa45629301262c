"""Write the tables of measured numbers into the pages: `python -m docs_site.numbers`.

A page has a pair of marks, `<!-- numbers: NAME -->` and `<!-- end of numbers -->`. What lies between them is made from
`benchmarks/results/*.json`, so that a number stands in one place only. A test fails while a page is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from docs_site.markdown import ROOT, pages
from docs_site.number_cells import NONE, RESULTS, Results, difference, p_text, read, score_text, source, table
from docs_site.numbers_of_demos import TABLES as OF_DEMOS

_MARKED = re.compile(r"<!-- numbers: ([\w-]+) -->\n.*?<!-- end of numbers -->", re.DOTALL)


def update(text: str, folder: str) -> str:
    """Return a page with the present numbers between its marks.

    Args:
        text: the page.
        folder: the way from the page to `benchmarks/results`.
    """
    docs = "docs/" if folder.startswith("benchmarks/") else ""

    def fresh(found: re.Match[str]) -> str:
        name = found[1]
        if name not in TABLES:
            raise KeyError(f"no table of numbers is named {name!r}; there are: {', '.join(sorted(TABLES))}")
        made = "\n".join(TABLES[name]()).replace("RESULTS/", folder).replace("DOCS/", docs)
        return f"<!-- numbers: {name} -->\n\n{made}\n\n<!-- end of numbers -->"

    return _MARKED.sub(fresh, text)


def _tests(tests: Iterable[Mapping[str, Any]], first: str = "") -> list[str]:
    """Return a table of differences with their intervals and corrected p values."""
    return table(
        ("Difference", "macro F1", "p, Holm"),
        (
            (f"{each.get('name', first)} − {each['against']}", difference(each), p_text(each["p_holm"]))
            for each in tests
        ),
    )


def _heads() -> list[str]:
    data = read("heads")
    others = {"dataloader_hdf5": "DataLoader over HDF5", "plain_loop": "plain loop", "summed_losses": "summed losses"}
    others |= {"sklearn_mlp": "scikit-learn `MLPClassifier`"}
    rows = []
    for name, each in data["shapes"].items():
        over = each["emofuse_over"]
        values = [f"{over[other]['median']:.1f}" if other in over else NONE for other in others]
        rows.append((f"{name}, {each['shape']['heads']} at once", *values))
    return [*table(("Heads", *others.values()), rows), "", source("heads")]


def _heads_limits() -> list[str]:
    """Return where the time of groups of heads goes, and how near it is to the peaks of the machine."""
    data = read("heads")
    parts = ("matrix products", "optimizer", "elementwise and other operations", "between operations", "reading rows")
    rows = []
    for name, each in data["shapes"].items():
        shares, over = each["profile"]["emofuse"]["shares"], ("emofuse_over", "emofuse_bfloat16_over")
        rows.append(
            (
                name,
                *(f"{shares.get(part, 0):.0%}".replace("%", " %") for part in parts),
                f"{each['limits']['emofuse']['times_the_floor']:.2f}",
                *(f"{each[way]['plain_loop']['median']:.1f}" for way in over),
            )
        )
    head = ("Heads", *parts, "times the least", "over plain loop", "in bfloat16")
    return [*table(head, rows), "", source("heads")]


def _extraction() -> list[str]:
    data = read("extraction")
    steps = data["steps_ms_per_image_on_one_core"]
    parts = [*table(("Step", "ms an image, one core"), ((name, f"{value:.2f}") for name, value in steps.items()))]
    speeds = data.get("images_per_s_median", {})
    parts += ["", *table(("Way", "images/s"), ((name.replace("_", " "), value) for name, value in speeds.items()))]
    over = data.get("six_passes_over_build", {})
    parts += [
        "",
        *table(
            ("Build", "times as fast as a script of six passes"), ((n.replace("_", " "), v) for n, v in over.items())
        ),
    ]
    faces = data.get("face_mesh_images_per_s_on_all_cores", {})
    if faces:
        parts += ["", *table(("Face mesh, all cores", "images/s"), faces.items())]
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
    return [*parts, "", source("extraction")]


def _read_speed() -> list[str]:
    data = read("read_speed")
    rows = (
        (task, reader, f"{each['gb_per_s']:.2f}", f"{each['times_the_first']:.2f}")
        for task, readers in data["answers"].items()
        for reader, each in readers.items()
    )
    return [*table(("Read", "with", "GB/s", "times the first"), rows, 2), "", source("read_speed")]


def _scale() -> list[str]:
    data = read("scale")
    steps = ("plan_new", "plan_finished", "open", "open_and_read_labels_ids_status")
    names = ("plan a build, s", "check a finished one, s", "open, s", "open and read labels and status, s")
    rows = []
    for each in data["curve"]:
        done = each["steps"]
        peak = max(step["peak_mb"] for step in done.values())
        seconds = [f"{done[step]['seconds']:.2f}" if step in done else NONE for step in steps]
        rows.append((f"{each['rows']:,}", *seconds, peak, f"{each['files_in_the_fullest_folder']:,}"))
    head = ("Rows", *names, "memory, MB", "files in the fullest folder")
    return [*table(head, rows, 0), "", source("scale")]


def _versus() -> list[str]:
    data = read("versus")
    rows = (
        (name, f"{each['median']:.2f}", ", ".join(f"{one:.2f}" for one in each["each"]))
        for name, each in data["base_over_this"].items()
    )
    note = f"The former engine is commit {data['base']}, before streams had shapes."
    return [*table(("Work", "speed over the former", "rounds"), rows), "", note, "", source("versus")]


def _fuzz() -> list[str]:
    data = read("fuzz")
    names = ["ok", "no_detection", "unreadable", "failed"]
    rows = ((stream, *(counts.get(name, 0) for name in names)) for stream, counts in data["counts"].items())
    note = f"{data['pictures']:,} mutated pictures; at most {data['peak_mb']:.0f} MB of memory."
    return [*table(("Stream", *names), rows), "", note, "", source("fuzz")]


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
        {model["name"]: model for model in read(f"heads_accuracy_{part}")["models"]} for part in ("faces", "fer2013")
    )
    names = list(wanted) or sorted({**fer, **faces}, key=lambda name: -_mean(fer.get(name), faces.get(name)))
    for name in names:
        cells = []
        for model in (faces.get(name), fer.get(name)):
            if model is None:
                cells += [NONE, NONE, NONE]
                continue
            seconds = model["cpu_s_a_split"]
            cells += [
                score_text(model["accuracy"]),
                f"{model['macro_f1']['mean']:.3f}",
                f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}",
            ]
        yield (_MODELS.get(name, name), *cells)


def _mean(fer: Mapping[str, Any] | None, faces: Mapping[str, Any] | None) -> float:
    """Return what rows of the table are sorted by: FER2013 first, then the faces."""
    return fer["accuracy"]["mean"] + 1 if fer else faces["accuracy"]["mean"] if faces else 0


def _heads_accuracy() -> list[str]:
    head = ("Model", "Faces: accuracy", "macro F1", "s", "FER2013: accuracy", "macro F1", "s")
    return [*table(head, _accuracy_rows()), "", source("heads_accuracy_faces", "heads_accuracy_fer2013")]


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
    return table(("Model", "Faces: accuracy", "macro F1", "FER2013: accuracy", "macro F1"), rows)


def _faces() -> list[str]:
    data = read("faces")
    rows = (
        (
            each["name"],
            f"{each['val_macro_f1']['mean']:.3f} ± {each['val_macro_f1']['sd']:.3f}",
            score_text(each["test_macro_f1"]),
            score_text(each["test_accuracy"]),
        )
        for each in data["configurations"]
    )
    tests = data["fusion_minus_single_streams"]["macro_f1"]
    head = ("Configuration", "macro F1, validation", "macro F1, test", "accuracy, test")
    first = data["best_fusion_on_validation"]
    return [*table(head, rows), "", *_tests(tests, first), "", source("faces")]


def _with_svm(data: Results) -> Iterable[tuple[str, ...]]:
    for each in data["configurations"]:
        svm = each.get("svm_test_macro_f1")
        yield each["name"], score_text(each["test_macro_f1"]), f"{svm['mean']:.3f}" if svm else NONE


def _face_crops() -> list[str]:
    data = read("face_crops")
    faces = data["with_a_face"]["test_macro_f1"]
    rows = (
        (name, score, svm, f"{faces[name]['mean']:.3f}" if name in faces else NONE)
        for name, score, svm in _with_svm(data)
    )
    head = ("Configuration", "macro F1", "SVM", "rows with a face")
    seen = {(each["name"], each["against"]): each for each in data["with_a_face"]["comparisons"]}
    tests = []
    for each in data["comparisons"]:
        faces_alone = seen.get((each["name"], each["against"]))
        cells = [difference(each), p_text(each["p_holm"]), difference(faces_alone) if faces_alone else NONE]
        tests.append((f"{each['name']} − {each['against']}", *cells))
    compared = table(("Difference", "macro F1", "p, Holm", "rows with a face"), tests)
    return [*table(head, rows), "", *compared, "", source("face_crops")]


def _textures() -> list[str]:
    data = read("texture_study")
    cost = {"LBP": "lbp", "LBP, 512 bins": "lbp", "HOG": "hog", "Gabor": "gabor", "LPQ": "lpq"}
    tests = {each["name"]: each for each in data["minus_lbp"]}
    rows = []
    for name, score, svm in _with_svm(data):
        ms = data["ms_an_image"].get(cost.get(name, ""), None)
        minus = difference(tests[name]) if name in tests else NONE
        p = p_text(tests[name]["p_holm"]) if name in tests else NONE
        rows.append((name, NONE if ms is None else f"{ms:.2f}", score, svm, minus, p))
    head = ("Texture", "ms a region", "macro F1", "SVM", "minus LBP", "p, Holm")
    return [*table(head, rows), "", source("texture_study")]


def _views() -> list[str]:
    data = read("views")
    rows = []
    for each in data["configurations"]:
        differences = each["difference_to_one_view"].values()
        rows.append((each["name"], score_text(each["test_macro_f1"]["1"]), *(difference(test) for test in differences)))
    counts = list(data["configurations"][0]["difference_to_one_view"])
    head = ("Configuration", "macro F1, 1 view", *(f"{count} views, difference" for count in counts))
    return [*table(head, rows), "", source("views")]


def _balance() -> list[str]:
    data = read("balance")
    rows = []
    for each in data["ways"]:
        cells = []
        for name in ("macro_f1", "accuracy"):
            low, high = each[f"{name}_interval"]
            cells.append(score_text({"mean": each[name], "low": low, "high": high}))
            gap = each.get(f"{name}_difference_interval")
            test = gap and {"mean": each[f"{name}_difference"], "low": gap[0], "high": gap[1]}
            cells.append(difference(test) if test else NONE)
        rows.append((f"`{each['way']}`", *cells))
    head = ("`train:`", "macro F1", "difference", "accuracy", "difference")
    return [*table(head, rows), "", source("balance")]


def _speech() -> list[str]:
    data = read("speech")
    kinds = list(dict.fromkeys(model["model"] for model in data["models"]))
    scores: dict[str, dict[str, str]] = {}
    for model in data["models"]:
        name = model["name"].removesuffix(", kernel ridge")
        scores.setdefault(name, {})[model["model"]] = score_text(model["uar"])
    rows = ((name, *(each.get(kind, NONE) for kind in kinds)) for name, each in scores.items())
    return [
        *table(("Streams", *(f"`{kind}`" if " " not in kind else kind for kind in kinds)), rows),
        "",
        source("speech"),
    ]


def _live() -> list[str]:
    data = read("live")
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
    parts = [*table(head, rows), "", *table(("Step of the first run", "ms, one core"), steps.items())]
    return [*parts, "", source("live")]


def _runtimes() -> list[str]:
    """Return the milliseconds an image of each network by runtime, of every machine that was measured."""
    contenders = ("torch float32", "openvino float32", "onnxruntime float32", "torch bfloat16", "openvino bfloat16")
    parts: list[str] = []
    for file in sorted(RESULTS.glob("runtimes_*.json")):
        rows = [
            (
                network,
                batch.removeprefix("batch "),
                *(each[name]["ms_an_image"] for name in contenders),
                *(f"{each[name]['difference']:.1e}" for name in ("openvino float32", "openvino bfloat16")),
            )
            for network, batches in read(file.stem)["networks"].items()
            for batch, each in batches.items()
        ]
        differences = ("difference of openvino float32", "of openvino bfloat16")
        parts += [*table(("Network", "Batch", *contenders, *differences), rows), "", source(file.stem), ""]
    return parts[:-1]


def _all_results() -> list[str]:
    """Return a table of every results file, so that none is without its command, machine and date."""
    rows = []
    for file in sorted(RESULTS.glob("*.json")):
        if file.stem.endswith("_smoke"):
            continue
        data = read(file.stem)
        machine = data.get("machine", {})
        where = f"{machine.get('cpu', NONE)}, {machine.get('cores', NONE)} cores"
        rows.append(
            (f"[`{file.name}`](RESULTS/{file.name})", f"`{data.get('command', NONE)}`", where, data.get("date", NONE))
        )
    return table(("File", "Command", "Machine", "Date"), rows, 4)


TABLES: dict[str, Callable[[], list[str]]] = {
    **OF_DEMOS,
    "all-results": _all_results,
    "balance": _balance,
    "beside-sklearn": _beside_sklearn,
    "extraction": _extraction,
    "face-crops": _face_crops,
    "faces": _faces,
    "fuzz": _fuzz,
    "heads": _heads,
    "heads-limits": _heads_limits,
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
