"""The tables and sentences on the generated demos, on reports, and on what `explain` finds on real data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from docs_site.number_cells import NONE, RESULTS, difference, p_text, read, score_text, source, table

_PHASES = {
    "drawing": "start, drawing of the pictures",
    "extraction": "networks, extraction",
    "training": "training",
    "references": "reference models",
    "report": "report",
}


def is_measured(name: str) -> bool:
    """Return whether there is a result of this name; one that needs a quiet machine may still be missing."""
    return (RESULTS / f"{name}.json").is_file()


def _not_measured(script: str) -> list[str]:
    return [f"*Not measured yet: `python -m benchmarks.{script}`.*"]


def _demo_time() -> list[str]:
    """Return the seconds of `make demo` by phase."""
    if not is_measured("demo"):
        return _not_measured("demo")
    data = read("demo")
    rows: list[tuple[str, str, str]] = []
    for phase, each in data["phases"].items():
        rows.append((_PHASES[phase], f"{each['wall_s']:.1f}", f"{each['cpu_s']:.1f}"))
    rows.append(("all", f"{data['wall_s']:.1f}", f"{data['cpu_s']:.1f}"))
    note = f"Medians of {data['runs']} runs"
    if data["first_block_s"] is not None:
        note += f"; the first 64 rows are there {data['first_block_s']:.1f} s after the drawing"
    return [*table(("Phase", "s", "s of all processors"), rows), "", f"{note}.", "", source("demo")]


def _demo_sentence() -> list[str]:
    """Return what the README says of the time of the demo."""
    if not is_measured("demo"):
        return []
    data = read("demo")
    machine = data["machine"]
    where = f"{machine['cores']} cores ({machine['cpu']})"
    return [
        f"Once set up, `make demo` takes {data['wall_s']:.0f} s on {where}: [by phase](DOCS/benchmarks.md#the-demo)."
    ]


def _report() -> list[str]:
    """Return what the report of thousands of configurations costs."""
    if not is_measured("report"):
        return _not_measured("report")
    data = read("report")
    opening = NONE if data["open_s"] is None else f"{data['open_s']:.1f}"
    row = (
        f"{data['configurations']:,}",
        f"{data['wall_s']:.0f}",
        f"{data['cpu_s']:.0f}",
        f"{data['peak_mb']:,}",
        f"{data['page_mb']:.1f}",
        opening,
    )
    head = ("Configurations", "s", "s of all processors", "memory, MB", "page, MB", "s to open it")
    return [*table(head, [row], 0), "", source("report")]


def _scores(name: str) -> list[str]:
    """Return accuracy and macro F1 of the configurations of a demo, beside what is reachable."""
    data = read(f"documented_{name}")
    rows = (
        (
            each["name"],
            *(f"{each[score]['mean']:.3f} ± {each[score]['sd']:.3f}" for score in ("accuracy", "macro_f1")),
            f"{each['reachable_accuracy']:.3f}",
        )
        for each in data["configurations"]
    )
    head = ("Configuration", "accuracy", "macro F1", "reachable accuracy")
    return [*table(head, rows), "", source(f"documented_{name}")]


def _outer_folds() -> list[str]:
    """Return scores in outer folds: means over the folds, pooled rows, and the difference to the baseline."""
    data = read("documented_outer_folds")
    against = {each["name"]: each for each in data["differences"]}
    rows = []
    for each in data["configurations"]:
        accuracy, test = each["accuracy"], against.get(each["name"])
        mean = f"{accuracy['mean']:.3f} ± {accuracy['sd']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
        compared = (difference(test["accuracy"]), p_text(test["p_holm"])) if test else (NONE, NONE)
        rows.append((each["name"], mean, score_text(each["pooled_accuracy"]), *compared))
    head = ("Streams", "accuracy, mean over folds", "accuracy, pooled", "against action units", "p, Holm")
    return [*table(head, rows), "", source("documented_outer_folds")]


def _worth() -> list[str]:
    """Return what the streams of the demo are worth, beside the design, at each number of pictures."""
    data = read("worth")
    sizes: Sequence[Mapping[str, Any]] = data["sizes"]
    head = ["Stream"]
    for number, size in enumerate(sizes):
        head += [f"Measured, {size['pictures']:,} pictures", *(["By design"] if number == 0 else []), "As read"]
    rows = []
    for stream in data["streams"]:
        cells = [f"`{stream}`"]
        for number, size in enumerate(sizes):
            each = size["streams"][stream]
            cells.append(score_text({"mean": each["measured"], "interval": each["interval"]}))
            cells += [f"{each['by_design']:.3f}"] if number == 0 else []
            cells.append(f"{each['as_read']:.3f}")
        rows.append(cells)
    sentences = [sentence for size in sizes for sentence in _worth_sentences(size)]
    return [*table(head, rows), "", *sentences, "", source("worth")]


def _worth_sentences(size: Mapping[str, Any]) -> Iterable[str]:
    """Yield what all streams reach, in whose intervals the two expectations lie, and which other cues streams tell."""
    streams: Mapping[str, Mapping[str, Any]] = size["streams"]
    pictures = f"{size['pictures']:,} pictures"
    yield (
        f"With {pictures}, all streams together reach {size['accuracy_of_all_streams']:.3f} of "
        f"{size['reachable_by_all_streams']:.3f}."
    )
    for key, words in (("by_design", "The value by design"), ("as_read", "The value as read")):
        inside = [name for name, each in streams.items() if each["interval"][0] <= each[key] <= each["interval"][1]]
        yield f"{words} lies in the interval of {_names(inside, len(streams))}."
    others = []
    for name, each in streams.items():
        own = max(each["tells"], key=each["tells"].get)
        others += [
            f"`{name}` tells the {cue} in {share:.0%} of its rows".replace("%", " %")
            for cue, share in each["tells"].items()
            if cue != own and share > 0.5
        ]
    if others:
        yield f"Some streams also tell a cue that was not drawn for them: {', '.join(others)}."


def _names(inside: Sequence[str], count: int) -> str:
    if len(inside) == count:
        return "every stream"
    return ", ".join(f"`{name}`" for name in inside) if inside else "no stream"


def _speech_gap() -> list[str]:
    """Return the gap between women and men in the speech of RAVDESS."""
    data = read("explained_speech")
    of = {group["group"]: group for group in data["groups"]}
    best, worst = of[data["best"]], of[data["worst"]]
    sentence = (
        f"On the speech of RAVDESS, the {data['best']} actors are recognised better than the {data['worst']} ones "
        f"({data['configuration']}): {best['accuracy']:.3f} and {worst['accuracy']:.3f}, a gap of {data['gap']:.3f} "
        f"[{data['gap_low']:.3f}, {data['gap_high']:.3f}], where speakers dealt at random would show "
        f"{data['gap_by_chance']:.3f} (p {data['p']:.3f}). These are twelve actors each, who act: the gap says nothing "
        "of its cause, and little of other speakers."
    )
    return [sentence, "", source("explained_speech")]


def _face_categories() -> list[str]:
    """Return the categories of ImageNet that go along with what SqueezeNet adds to each class."""
    data = read("explained_faces")
    named = "; ".join(f"{each['class']}: {', '.join(each['categories'])}" for each in data["strongest"])
    sentence = (
        f"On the face photographs, the categories of SqueezeNet that go along most with each class are: {named}. No "
        "category of ImageNet is an expression, so these say how photographs of a class look to the network, and not "
        "what it takes for the emotion."
    )
    return [sentence, "", source("explained_faces")]


def _equals() -> list[str]:
    """Return how often equals with repeats are called different in simulations."""
    data = read("equals")
    shares = data["share_with_p_below_0.05"]
    said = []
    for kind, words in (
        ("units decide", "where repeats do not differ but by chance on single rows"),
        ("repeats differ", "where some repeats are good and others bad, more than the rows explain"),
    ):
        low, high = min(shares[kind].values()), max(shares[kind].values())
        said.append(f"in {_percent(low).removesuffix(' %')} to {_percent(high)} of the pairs {words}")
    repeats = list(next(iter(shares.values())))
    sentence = (
        f"In simulations of {data['pairs']:,} pairs of equals with {repeats[0]} to {repeats[-1]} repeats and "
        f"{data['rows']} rows, p is below 5 % {said[0]}, and {said[1]}."
    )
    return [sentence, "", source("equals")]


def _bfloat16_distances() -> list[str]:
    """Return how far features in bfloat16 are from those in float32."""
    data = read("precision")
    ways = ("openvino bfloat16", "torch bfloat16")
    rows = []
    for name, of_way in data["distances"].items():
        title = f"`{name}` (random weights)" if name in data["random_weights"] else f"`{name}`"
        cells = []
        for way in ways:
            cells += [f"{of_way[way]['smallest_cosine']:.5f}", f"{100 * of_way[way]['largest_difference']:.1f} %"]
        rows.append((title, *cells))
    head = ["Network"]
    for way in ways:
        head += [f"{way}: smallest cosine", "largest difference"]
    return [*table(head, rows), "", source("precision")]


_SHORTEST_S = 0.05


def _extraction_profile() -> list[str]:
    """Return the CPU seconds of a build by phase and by runtime; phases that are short in all builds are summed."""
    if not is_measured("extraction_profile"):
        return _not_measured("extraction_profile")
    data = read("extraction_profile")
    builds: Mapping[str, Mapping[str, float]] = data["cpu_s"]
    phases = list(dict.fromkeys(phase for build in builds.values() for phase in build))
    long = [name for name in phases if any(build.get(name, 0.0) >= _SHORTEST_S for build in builds.values())]

    def cells(name: str, seconds: Iterable[float]) -> tuple[str, ...]:
        return (name, *(f"{each:.2f}" if each else "" for each in seconds))

    rows = [cells(name, (build.get(name, 0.0) for build in builds.values())) for name in long]
    short = [sum(seconds for name, seconds in build.items() if name not in long) for build in builds.values()]
    rows.append(cells("phases that are shorter", short))
    rows.append(cells("all", (sum(build.values()) for build in builds.values())))
    title = f"Phase, {data['images']} images"
    return [*table((title, *builds), rows), "", source("extraction_profile")]


def _small_faces() -> list[str]:
    """Return how many small faces are found as they are and enlarged."""
    data = read("detection")
    shares = "; ".join(
        f"`{name}` {_percent(each['as_they_are'])} as they are and {_percent(each['enlarged'])} enlarged"
        for name, each in data["found"].items()
    )
    sentence = f"Of {data['small_pictures']} real faces of 48 x 48 pixels (FER2013), detectors find: {shares}."
    return [sentence, "", source("detection")]


def _turned_faces() -> list[str]:
    """Return how often a detector that looks at all turns takes the right one."""
    data = read("detection")
    shares = ", ".join(f"`{name}` {_percent(share)}" for name, share in data["right_turn"].items())
    sentence = (
        f"Of {data['photographs']} photographs of faces, each upright and turned by 90, 180 and 270 degrees, `turned` "
        f"finds the face in its turn: {shares}."
    )
    return [sentence, "", source("detection")]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


TABLES: dict[str, Callable[[], list[str]]] = {
    "bfloat16-distances": _bfloat16_distances,
    "clips-demo-scores": lambda: _scores("clips_demo"),
    "demo-scores": lambda: _scores("demo"),
    "demo-sentence": _demo_sentence,
    "demo-time": _demo_time,
    "demo-worth": _worth,
    "equals": _equals,
    "extraction-profile": _extraction_profile,
    "face-categories": _face_categories,
    "outer-folds": _outer_folds,
    "report-of-thousands": _report,
    "small-faces": _small_faces,
    "speech-gap": _speech_gap,
    "turned-faces": _turned_faces,
}
"""What can stand between marks, by name."""
