"""Ridge regression on every subset of some streams, at every penalty, in every fold, from one pass over the rows.

The rows of a fold are summed up once, as products of all columns with each other and with the targets. What trains a
fold is the sum over the other folds. Mean and deviation of each column follow from these sums, so that each fold is
standardised by its own training rows without another pass. A subset is a part of the matrix.

Streams are put in order, the widest first, and subsets form a tree: `a`, `a b`, `a b c`, `a c`. The Cholesky factor of
a subset is that of the subset without its last stream, and the rows of that stream. So the wide streams are decomposed
once for all subsets that begin with them: for the paper's six streams, 63 factors take the operations of 3.

With fewer training rows than columns, a subset is solved by the products of its rows, which are added over its streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from emofuse.errors import TrainingError

ROWS_AT_ONCE = 4096
_PANEL = 1024
"""The columns of a product that are computed together, so that only about half of a symmetric product is."""
_CONSTANT = 1e-9
"""A column whose variance over the training rows is this share of its mean square, or less, is constant."""

Subset = tuple[str, ...]


@dataclass(frozen=True)
class SubsetRows:
    """The rows of a few folds, read in parts.

    Attributes:
        read: rows, int64 (n,) -> stream -> (features (n, D) floating point, of about unit size and zero in rows that
            lack the stream; bool (n,), whether each row has it).
        dims: stream -> D.
        folds: the rows of each fold, int64.
        targets: the targets of all rows that may be read, float64 (N, C).
        weights: the weights of all rows, float64 (N,); None for equal ones.
    """

    read: Callable[[Tensor], Mapping[str, tuple[Tensor, Tensor]]]
    dims: Mapping[str, int]
    folds: Sequence[Tensor]
    targets: Tensor
    weights: Tensor | None = None

    def parts(self, places: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield rows, their columns of all streams (n, D), whether they have each stream (n, S), and their weights."""
        for rows in torch.split(places, ROWS_AT_ONCE):
            of_streams = self.read(rows)
            columns = torch.cat([of_streams[name][0].float() for name in self.dims], dim=1)
            there = torch.stack([of_streams[name][1] for name in self.dims], dim=1).float()
            weights = torch.ones(len(rows)) if self.weights is None else self.weights[rows].float()
            yield rows, columns, there, weights


@dataclass(frozen=True)
class FoldFit:
    """The models of one fold, fitted to the rows of the other folds.

    Attributes:
        center: what is subtracted of each column, (D,).
        scale: what each column is then divided by, (D,).
        intercept: the mean target, (C,).
        weights: the coefficients (subsets, L, D, C) float32 of the standardised columns, 0 outside of the subset.
    """

    center: Tensor
    scale: Tensor
    intercept: Tensor
    weights: Tensor


class SubsetRidge:
    """Ridge regressions on subsets of streams.

    A stream counts as a whole: its standardised columns are divided by the root of their number, so that the kernel of
    a subset is the sum of the linear kernels x z / D of its streams. A row without a stream has zeros in its columns.
    The fit of a fold minimises the mean squared error over its n training rows plus the penalty times the squared
    coefficients.

    Args:
        rows: the rows.
        subsets: the subsets.
        penalties: the L penalties, each above 0.
    """

    def __init__(self, rows: SubsetRows, subsets: Sequence[Subset], penalties: Sequence[float]) -> None:
        self.rows, self.subsets, self.penalties = rows, tuple(subsets), tuple(penalties)
        if len(rows.folds) < 2:
            raise TrainingError("a fold is answered by a model of the other folds, and there is one fold alone")
        stops = list(accumulate(rows.dims.values(), initial=0))
        self._columns = dict(zip(rows.dims, (slice(*pair) for pair in pairwise(stops)), strict=True))
        self._stream_of = torch.repeat_interleave(torch.tensor(list(rows.dims.values())))
        widest_first = sorted(rows.dims, key=lambda name: -rows.dims[name])
        ordered = [tuple(name for name in widest_first if name in subset) for subset in self.subsets]
        self._place = {path: place for place, path in enumerate(ordered)}
        self._inner = {path[:length] for path in ordered for length in range(1, len(path) + 1)}
        self._order = widest_first

    def fits(self) -> Iterator[FoldFit]:
        """Yield the models of one fold after another."""
        train_rows = [sum(map(len, self.rows.folds)) - len(fold) for fold in self.rows.folds]
        if self._by_rows(max(train_rows)):
            yield from (self._fit_by_rows(fold) for fold in range(len(self.rows.folds)))
            return
        sums = [self._sums(fold) for fold in range(len(self.rows.folds))]
        total = _Sums(sums[0].with_targets.clone(), sums[0].products.clone())
        for of_fold in sums[1:]:
            total.with_targets.add_(of_fold.with_targets)
            total.products.add_(of_fold.products)
        for of_fold in sums:
            yield self._fit_by_columns(total, of_fold)

    def outputs(self, fit: FoldFit, places: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the predictions of the models of a fold for some of its rows, float32 (n, subsets, L or 1, C).

        Args:
            fit: the models of the fold.
            places: the rows, int64 (n,).
            chosen: the place of the penalty of each subset, int64 (subsets,); None for all penalties.
        """
        weights = fit.weights
        if chosen is not None:
            weights = weights[torch.arange(len(weights)), chosen].unsqueeze(1)
        count, penalties, wide, outputs = weights.shape
        side_by_side = weights.permute(2, 0, 1, 3).reshape(wide, -1)
        answers = torch.empty(len(places), count, penalties, outputs)
        for part, (_, columns, there, _) in zip(
            torch.split(answers, ROWS_AT_ONCE), self.rows.parts(places), strict=True
        ):
            scaled = _standardised(columns, there[:, self._stream_of], fit.center, fit.scale)
            torch.mm(scaled, side_by_side, out=part.view(len(part), -1))
        return answers.add_(fit.intercept.float())

    def _by_rows(self, train_rows: int) -> bool:
        """Return whether products of rows take fewer operations than products of columns."""
        of_columns = 0
        for path in self._inner:
            last, before = self.rows.dims[path[-1]], sum(self.rows.dims[name] for name in path[:-1])
            of_columns += last * before**2 + last**2 * before + last**3 // 3
        return len(self.subsets) * train_rows**3 // 3 < of_columns

    # ------------------------------------------------------------------------------------------------- by columns

    def _sums(self, fold: int) -> _Sums:
        """Sum up the rows of a fold: float32 products of some rows at a time, added in float64."""
        sums = _Sums.zero(len(self._stream_of), len(self.rows.dims), self.rows.targets.shape[1])
        for rows, columns, there, weights in self.rows.parts(self.rows.folds[fold]):
            beside = torch.cat([columns, there, torch.ones(len(rows), 1)], dim=1)
            goal = self.rows.targets[rows]
            weighted = beside * weights.unsqueeze(1)
            _add_symmetric(sums.products, beside, weighted)
            sums.with_targets.add_(weighted.double().T @ goal)
        return sums

    def _fit_by_columns(self, total: _Sums, held_out: _Sums) -> FoldFit:
        columns = len(self._stream_of)
        products = total.products - held_out.products
        with_targets = total.with_targets - held_out.with_targets
        of_there, weight = products[columns:-1], float(products[-1, -1])
        inside = of_there[:, columns:-1].diagonal()[self._stream_of].clamp(min=1e-30)
        center = of_there[self._stream_of, torch.arange(columns)] / inside
        variance = products.diagonal()[:columns] / inside - center.square()
        scale = _scale_of(variance, center, self._widths())
        intercept = with_targets[-1] / weight
        # (x - v c) (z - w d) = x z - c (v z) - d (x w) + c d (v w), of columns x, z and whether rows have them v, w
        small = of_there[:, :columns] - of_there[:, columns:-1][:, self._stream_of] * center
        matrix = products[:columns, :columns]
        matrix -= small[self._stream_of] * center.unsqueeze(1)
        matrix -= of_there[:, :columns].T[:, self._stream_of] * center
        matrix /= scale
        matrix /= scale.unsqueeze(1) * weight
        goal = with_targets[:columns] - center.unsqueeze(1) * with_targets[columns:-1][self._stream_of]
        goal = goal / scale.unsqueeze(1) / weight
        weights = torch.zeros(len(self.subsets), len(self.penalties), columns, goal.shape[1])
        for place, penalty in enumerate(self.penalties):
            self._descend(matrix, goal, penalty, weights[:, place])
        return FoldFit(center, scale, intercept, weights)

    def _descend(self, matrix: Tensor, goal: Tensor, penalty: float, out: Tensor) -> None:
        """Solve all subsets at one penalty, depth first through the tree of subsets."""
        factor: dict[tuple[str, str], Tensor] = {}  # (row, column) of the Cholesky factor of the path
        forward: dict[str, Tensor] = {}

        def visit(path: Subset) -> None:
            *before, last = path
            own = self._columns[last]
            block = matrix[own, own].clone()
            block.diagonal().add_(penalty)
            right = goal[own].clone()
            for place, name in enumerate(before):
                upper = matrix[self._columns[name], own].clone()
                for earlier in before[:place]:
                    upper.addmm_(factor[name, earlier], factor[last, earlier].T, alpha=-1)
                upper = torch.linalg.solve_triangular(factor[name, name], upper, upper=False)
                factor[last, name] = upper.T
                block.addmm_(upper.T, upper, alpha=-1)
                right.addmm_(upper.T, forward[name], alpha=-1)
            factor[last, last] = torch.linalg.cholesky(block)
            forward[last] = torch.linalg.solve_triangular(factor[last, last], right, upper=False)
            if path in self._place:
                self._substitute(path, factor, forward, out[self._place[path]])
            for name in self._order[self._order.index(last) + 1 :]:
                if (*path, name) in self._inner:
                    visit((*path, name))

        for name in self._order:
            if (name,) in self._inner:
                visit((name,))

    def _substitute(
        self, path: Subset, factor: Mapping[tuple[str, str], Tensor], forward: Mapping[str, Tensor], out: Tensor
    ) -> None:
        """Write the coefficients (D, C) of a subset, from the last of its streams back to the first."""
        solved: dict[str, Tensor] = {}
        for place in reversed(range(len(path))):
            name = path[place]
            right = forward[name].clone()
            for later in path[place + 1 :]:
                right.addmm_(factor[later, name].T, solved[later], alpha=-1)
            solved[name] = torch.linalg.solve_triangular(factor[name, name].T, right, upper=True)
            out[self._columns[name]] = solved[name].float()

    # ---------------------------------------------------------------------------------------------------- by rows

    def _fit_by_rows(self, held_out: int) -> FoldFit:
        train = [rows for fold, rows in enumerate(self.rows.folds) if fold != held_out]
        parts = [part for rows in train for part in self.rows.parts(rows)]
        rows, columns, there, weights = (torch.cat(list(each)) for each in zip(*parts, strict=True))
        columns, weights, there = columns.double(), weights.double().unsqueeze(1), there.double()[:, self._stream_of]
        inside = (weights * there).sum(0).clamp(min=1e-30)
        center = (weights * columns).sum(0) / inside
        scale = _scale_of((weights * columns.square()).sum(0) / inside - center.square(), center, self._widths())
        targets, share = self.rows.targets[rows], weights / weights.sum()
        intercept = (share * targets).sum(0)
        scaled = share.sqrt() * _standardised(columns, there, center, scale)
        goal = share.sqrt() * (targets - intercept)
        kernels = {}
        for name, own in self._columns.items():
            part = scaled[:, own].contiguous()
            kernels[name] = part @ part.T
        out = torch.zeros(len(self.subsets), len(self.penalties), len(self._stream_of), targets.shape[1])
        for path, place in self._place.items():
            kernel = sum((kernels[name] for name in path[1:]), start=kernels[path[0]].clone())
            diagonal = kernel.diagonal().clone()
            for of_penalty, penalty in enumerate(self.penalties):
                kernel.diagonal().copy_(diagonal + penalty)
                duals = torch.cholesky_solve(goal, torch.linalg.cholesky(kernel))
                for name in path:
                    own = self._columns[name]
                    out[place, of_penalty, own] = (scaled[:, own].T @ duals).float()
        return FoldFit(center, scale, intercept, out)

    def _widths(self) -> Tensor:
        return torch.tensor(list(self.rows.dims.values()), dtype=torch.float64)[self._stream_of]


@dataclass(frozen=True)
class _Sums:
    """Sums over rows of the columns, of S columns that say whether a row has a stream, and of a column of ones.

    Attributes:
        with_targets: of products with the targets, float64 (D + S + 1, C).
        products: of products with each other, float64 (D + S + 1, D + S + 1).
    """

    with_targets: Tensor
    products: Tensor

    @classmethod
    def zero(cls, columns: int, streams: int, outputs: int) -> _Sums:
        """Return the sums of no row."""
        wide = columns + streams + 1
        return cls(torch.zeros(wide, outputs, dtype=torch.float64), torch.zeros(wide, wide, dtype=torch.float64))


def _add_symmetric(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right, which is symmetric, panel by panel of its upper half."""
    for start in range(0, left.shape[1], _PANEL):
        stop = min(start + _PANEL, left.shape[1])
        panel = left[:, :stop].T @ right[:, start:stop]
        total[:stop, start:stop] += panel
        total[start:stop, :start] += panel[:start].T


def _standardised(columns: Tensor, there: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Return columns (n, D) standardised, and zero where the row does not have the stream."""
    kind = columns.dtype
    return (columns - there * center.to(kind)) / scale.to(kind)


def _scale_of(variance: Tensor, center: Tensor, widths: Tensor) -> Tensor:
    """Return the divisors of columns: deviation times the root of the stream's width, infinite for constants."""
    constant = variance <= _CONSTANT * (variance.clamp(min=0) + center.square()).clamp(min=1e-30)
    return torch.where(constant, torch.inf, (variance.clamp(min=0) * widths).sqrt())
