"""The classes that the labels of a dataset and the classes of a model share, with a label map or without.

A map whose labels are those of the data is applied to the data: a row counts as the class that its label maps to. A map
whose labels are the classes of the model is applied to the model: the probabilities of classes that map to one label
are summed. If it may be either, it is applied to the data. Without a map, labels and classes are shared by their names.

Scores are over the *shared* classes, which a row can have and the model can answer. Rows of other labels are left out
and counted. The model answers among the shared classes: the probabilities of its other classes are left out, and the
remaining ones are divided by their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from emofuse.errors import SpecError, did_you_mean
from emofuse.specs import LabelMapSpec
from emofuse.specs.label_maps import find_label
from emofuse.wording import join_names

Side = Literal["data", "model"]


@dataclass(frozen=True)
class SharedClasses:
    """The classes that a dataset and a model share.

    Attributes:
        names: the names of the C shared classes, in the order of the side that the map leads to.
        of_data: label of the data -> the shared class that it counts as; None for one that is left out.
        of_model: class of the model -> the shared class that its probability counts for; None for one that is left out.
        label_map: the map; None without.
        side: the side that the map is applied to.
    """

    names: tuple[str, ...]
    of_data: Mapping[str, str | None]
    of_model: Mapping[str, str | None]
    label_map: LabelMapSpec | None = None
    side: Side = "data"

    def labels(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the indices of shared classes (N,) int64 of the labels of the data, -1 for rows that are left out."""
        return _places(self.of_data, self.names, labels)

    def outputs(self, probs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the probabilities (n, C) float32 of shared classes from those of the model's classes (n, M)."""
        summed = self._summed(probs)
        totals = np.maximum(summed.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        outputs: npt.NDArray[np.float32] = (summed / totals).astype(np.float32)
        return outputs

    def without_restriction(self, probs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the answers (n,) int64 among all classes of the model: a shared class, or -1 for another one."""
        others = [place for place, shared in enumerate(self.of_model.values()) if shared is None]
        answers = np.concatenate([self._summed(probs), probs[:, others].astype(np.float64)], axis=1).argmax(axis=1)
        return np.where(answers < len(self.names), answers, -1).astype(np.int64)

    def _summed(self, probs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        summed = np.zeros((len(probs), len(self.names)))
        for place, shared in enumerate(self.of_model.values()):
            if shared is not None:
                summed[:, self.names.index(shared)] += probs[:, place]
        return summed

    @property
    def sentences(self) -> list[str]:
        """Return a sentence for each merged, left out or differently spelled label."""
        found = []
        for side, title, mapped in (
            ("data", "Labels of the data", self.of_data),
            ("model", "Classes of the model", self.of_model),
        ):
            for name in self.names:
                same = [label for label, shared in mapped.items() if shared == name]
                if len(same) > 1:
                    found.append(f"{title}: {join_names(same)} count as {name}{self._loss(side, same)}.")
                elif same and same[0] != name and (self.label_map is None or side != self.side):
                    found.append(f"{title}: {same[0]} is another spelling of {name}.")
            lost = [label for label, shared in mapped.items() if shared is None]
            if lost:
                what = "rows are" if side == "data" else "probability is"
                found.append(
                    f"{title}: {join_names(lost)} without a counterpart, whose {what} left out{self._loss(side, lost)}."
                )
        return found

    def _loss(self, side: str, labels: Sequence[str]) -> str:
        """Return the note of the map on the loss of these labels."""
        if self.label_map is None or side != self.side:
            return ""
        lossy = {find_label(label, labels) or label: text for label, text in self.label_map.lossy.items()}
        reasons = dict.fromkeys(lossy[label] for label in labels if label in lossy)
        return f" ({'; '.join(reasons)})" if reasons else ""


def share_classes(
    classes: Sequence[str],
    of_data: Sequence[str],
    label_map: LabelMapSpec | None = None,
    *,
    maps: Sequence[LabelMapSpec] = (),
) -> SharedClasses:
    """Return the classes that a model and a dataset share.

    Args:
        classes: the classes of the model.
        of_data: the labels of the data.
        label_map: the map, which is applied to the side whose labels it has.
        maps: the maps that come with emofuse, of which those that fit are named in an error.

    Raises:
        SpecError: a label has no counterpart and no map says so, the map fits neither side, or fewer than two classes
            are shared; all problems are named.
    """
    if label_map is None:
        shared = _shared_by_name(classes, of_data, maps)
    else:
        shared = _shared_by_map(classes, of_data, label_map)
    if len(shared.names) < 2:
        there = shared.names[0] if shared.names else "none"
        raise SpecError(
            "label map" if label_map is None else f"label map {label_map.name}",
            [f"data and model must share two classes or more, they share: {there}"],
        )
    return shared


def _shared_by_name(classes: Sequence[str], of_data: Sequence[str], maps: Sequence[LabelMapSpec]) -> SharedClasses:
    to_class = {label: find_label(label, classes) for label in of_data}
    problems = [
        f"label {label!r} of the data is no class of the model{did_you_mean(label, classes)}"
        for label, name in to_class.items()
        if name is None
    ]
    if problems:
        fitting = _fitting(maps, classes, of_data)
        hint = f"maps that fit: {', '.join(fitting)}" if fitting else "write one: see docs/evaluate.md"
        raise SpecError(
            "evaluate without --map",
            [*problems, f"the model has {', '.join(classes)}; give a label map with --map ({hint})"],
        )
    return _shared(tuple(classes), to_class, {name: name for name in classes})


def _shared_by_map(classes: Sequence[str], of_data: Sequence[str], label_map: LabelMapSpec) -> SharedClasses:
    side = _side(label_map, classes, of_data)
    mapped, others = (of_data, classes) if side == "data" else (classes, of_data)
    what, of_others = ("label", "class of the model") if side == "data" else ("class", "label of the data")
    owner = "data" if side == "data" else "model"
    counts_as, problems = {}, []
    for label in mapped:
        key = find_label(label, label_map.labels)
        if key is None:
            hint = did_you_mean(label, label_map.labels)
            problems.append(f"labels: {what} {label!r} of the {owner} is missing{hint}")
            continue
        wanted = label_map.labels[key]
        found = None if wanted is None else find_label(wanted, others)
        if wanted is not None and found is None:
            hint = did_you_mean(wanted, others) or f" (there are: {', '.join(others)})"
            problems.append(f"labels.{key}: {wanted!r} is no {of_others}{hint}; write null to leave it out")
        counts_as[label] = found
    if problems:
        raise SpecError(f"label map {label_map.name} on the {owner}", problems)
    same = {name: name for name in others}
    if side == "data":
        return _shared(tuple(classes), counts_as, same, label_map, side)
    return _shared(tuple(of_data), same, counts_as, label_map, side)


def _shared(
    order: Sequence[str],
    of_data: Mapping[str, str | None],
    of_model: Mapping[str, str | None],
    label_map: LabelMapSpec | None = None,
    side: Side = "data",
) -> SharedClasses:
    both = set(of_data.values()) & set(of_model.values())
    names = tuple(name for name in order if name in both)

    def kept(mapped: Mapping[str, str | None]) -> dict[str, str | None]:
        return {label: name if name in names else None for label, name in mapped.items()}

    return SharedClasses(names, kept(of_data), kept(of_model), label_map, side)


def _side(label_map: LabelMapSpec, classes: Sequence[str], of_data: Sequence[str]) -> Side:
    """Return the side that a map is applied to: the one whose labels it has; equal names count before spellings."""
    for is_known in (lambda label: label in label_map.labels, lambda label: bool(find_label(label, label_map.labels))):
        data, model = (sum(map(is_known, side)) / len(side) for side in (of_data, classes))
        if data == 1:
            return "data"
        if model == 1:
            return "model"
    return "data" if data >= model else "model"


def _fitting(maps: Sequence[LabelMapSpec], classes: Sequence[str], of_data: Sequence[str]) -> list[str]:
    """Return the names of the maps that bring most labels of the data to classes of the model."""
    kept: dict[str, tuple[int, int]] = {}
    for each in maps:
        try:
            shared = _shared_by_map(classes, of_data, each)
        except SpecError:
            continue
        targets = {label for label in each.labels.values() if label is not None}
        names = {*each.labels, *targets}
        equal = sum(label in names for label in (*classes, *of_data))
        kept[each.name] = sum(label is not None for label in shared.of_data.values()), equal
    return [name for name, count in kept.items() if count == max(kept.values()) and count[0] > 1]


def _places(
    mapped: Mapping[str, str | None], names: Sequence[str], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    places = [-1 if name is None else names.index(name) for name in mapped.values()]
    return np.asarray([*places, -1], np.int64)[labels]
