"""Place groups of rows in the parts of a split, so that no group is parted and every label keeps its proportions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from emofuse.checksum import seed_of

_PASSES = 10


def groups_of_rows(labels: Sequence[str | None], groups: Sequence[str | None] | None) -> dict[str, list[int]]:
    """Return the labelled rows of each group, for groups of two or more of them: a single row cannot be parted.

    Args:
        labels: the label names (N,); None for a row that does not count.
        groups: the group of every row (N,), None for a row that is a group of its own; None without groups.
    """
    if groups is None:
        return {}
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, (label, group) in enumerate(zip(labels, groups, strict=True)):
        if label is not None and group is not None:
            rows_of[group].append(row)
    return {name: rows for name, rows in rows_of.items() if len(rows) > 1}


def place_groups(
    groups: Mapping[str, Mapping[str, int]], wanted: Mapping[str, Sequence[int]], singles: Mapping[str, int], seed: int
) -> dict[str, int]:
    """Return the part of every group.

    Groups are placed one after another, the largest first, those of one size in an order that depends on the seed:

    1. A group fits a part that still lacks as many rows of each of its labels. Of the parts that it fits, one is
       drawn, each as likely as it lacks many rows of these labels. So the test has large groups as often as small
       ones, and another seed gives another split.
    2. A group that fits nowhere goes to the part where it reduces the squared distance to the wanted counts most,
       with each label's distance divided by its number of rows.
    3. If no more groups and single rows of a label are left than parts without this label, only these parts count.
    4. At the end, the smallest groups first, a group moves to another part if that reduces the squared number of rows
       that parts have too many, or lack beyond what single rows can fill.

    The largest first, each to the part that lacks its labels most, is the rule of StratifiedGroupKFold in
    scikit-learn and, for labels of rows, of iterative stratification (Sechidis et al., ECML PKDD 2011); the draw
    among the parts is added, because without it seeds matter for groups of one size alone. A part ends with fewer
    than the rows of the largest group too many or too few of a label, as long as groups have one label each and no
    part is short of groups (rule 3).

    Args:
        groups: group -> label -> its number of rows.
        wanted: label -> the number of rows of each part, P numbers.
        singles: label -> the number of rows without a group, which are placed afterwards.
        seed: the seed of the draws, which depend on it and on the names of the groups, not on the order of rows.
    """
    names = sorted(groups, key=lambda name: (-sum(groups[name].values()), seed_of(seed, "group", name)))
    placement = _Placement(wanted, singles, groups)
    for name in names:
        placement.place(name, seed_of(seed, "group", name))
    for _ in range(_PASSES):
        if not sum(placement.move(name) for name in reversed(names)):
            break
    return placement.part_of


class _Placement:
    """The state of the placement: how many rows of each label every part lacks.

    Attributes:
        part_of: group -> its part, for the groups that are placed.
    """

    def __init__(
        self,
        wanted: Mapping[str, Sequence[int]],
        singles: Mapping[str, int],
        groups: Mapping[str, Mapping[str, int]],
    ) -> None:
        self.part_of: dict[str, int] = {}
        self._groups = groups
        self._singles = singles
        self._lacks = {label: list(counts) for label, counts in wanted.items()}
        self._rows = {label: sum(counts) for label, counts in wanted.items()}
        self._left = {label: singles.get(label, 0) for label in wanted}
        for held in groups.values():
            for label in held:
                self._left[label] += 1
        self._parts_need = {label: self._left[label] >= len(counts) for label, counts in wanted.items()}
        self._units = {label: [0] * len(counts) for label, counts in wanted.items()}  # placed groups of each part

    def place(self, name: str, draw: int) -> None:
        held = self._groups[name]
        part = self._choose(held, draw)
        self.part_of[name] = part
        for label in held:
            self._left[label] -= 1
        self._add(held, part, 1)

    def move(self, name: str) -> bool:
        """Move a group to the part where it reduces the distance most, if there is one; return whether it moved."""
        held, here = self._groups[name], self.part_of[name]
        if not any(self._off(label, here, 0) for label in held):
            return False
        if any(self._parts_need[label] and self._units[label][here] == 1 for label in held):
            return False  # the part would be without the label
        changes = {part: self._change(held, here, part) for part in self._all_parts(held) if part != here}
        best = min(changes, key=lambda part: changes[part])
        if changes[best] >= 0:
            return False
        self._add(held, here, -1)
        self._add(held, best, 1)
        self.part_of[name] = best
        return True

    def _add(self, held: Mapping[str, int], part: int, sign: int) -> None:
        for label, rows in held.items():
            self._lacks[label][part] -= sign * rows
            self._units[label][part] += sign

    def _change(self, held: Mapping[str, int], here: int, there: int) -> float:
        """Return by how much a move changes the squared distances; rounded, so that no move is for nothing."""
        change = 0.0
        for label, rows in held.items():
            after = self._off(label, here, rows) ** 2 + self._off(label, there, -rows) ** 2
            before = self._off(label, here, 0) ** 2 + self._off(label, there, 0) ** 2
            change += (after - before) / self._rows[label]
        return round(change, 9)

    def _off(self, label: str, part: int, freed: int) -> int:
        """Return how many rows a part has too many, or lacks beyond what single rows can fill."""
        lacks = self._lacks[label][part] + freed
        return max(-lacks, lacks - self._singles.get(label, 0), 0)

    def _choose(self, held: Mapping[str, int], draw: int) -> int:
        parts = self._parts(held)
        fitting = [part for part in parts if all(self._lacks[label][part] >= rows for label, rows in held.items())]
        if not fitting:
            return min(parts, key=lambda part: self._distance(held, part))
        shares = [sum(self._lacks[label][part] for label in held) for part in fitting]
        place = draw % sum(shares)
        for part, share in zip(fitting, shares, strict=True):
            if place < share:
                return part
            place -= share
        raise AssertionError("a number below the sum of the shares lies in one of them")

    def _parts(self, held: Mapping[str, int]) -> list[int]:
        """Return the parts that may take a group: all, or those that would otherwise stay without a label of it."""
        parts = self._all_parts(held)
        lacking = [self._units[label] for label in held if self._parts_need[label]]
        left = [self._left[label] for label in held if self._parts_need[label]]
        urgent = [units for units, rest in zip(lacking, left, strict=True) if rest <= units.count(0)]
        gains = [sum(units[part] == 0 for units in urgent) for part in parts]
        return [part for part in parts if gains[part] == max(gains)]

    def _all_parts(self, held: Mapping[str, int]) -> range:
        return range(len(self._lacks[next(iter(held))]))

    def _distance(self, held: Mapping[str, int], part: int) -> float:
        """Return by how much a group changes the squared distance of a part; rounded, so that ties are ties."""
        return round(
            sum(rows * (rows - 2 * self._lacks[label][part]) / self._rows[label] for label, rows in held.items()), 9
        )
