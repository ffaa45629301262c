"""Measure how often the test of two configurations with repeats calls equals different, by simulation.

    python -m benchmarks.equals

Two configurations with 2 to 6 repeats each are drawn alike, 1,000 pairs of each kind. The probability that a repeat
answers a row rightly depends on the row, on row and configuration together, and on the repeat, by normal deviates on
the logistic scale. A correct test has p below 0.05 in 5 % of the pairs.

    units decide      repeats of a configuration do not differ but by chance on single rows
    repeats differ    some repeats are good and some are bad (deviation 0.5), more than 200 rows explain

The numbers are no times. About 2 minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.results_file import RESULTS, write_result
from emofuse.statistics import Resampled, paired_bootstrap

ROWS, RESAMPLES, PAIRS, REPEATS = 200, 500, 1_000, (2, 3, 4, 6)
KINDS = {"units decide": 0.0, "repeats differ": 0.5}
"""Kind -> the deviation between repeats."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and write `results/equals.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    shares: dict[str, dict[str, float]] = {}
    for kind, deviation in KINDS.items():
        shares[kind] = {}
        for repeats in REPEATS:
            shares[kind][str(repeats)] = share_called_different(repeats, deviation, chosen.pairs)
            print(kind, repeats, shares[kind][str(repeats)], flush=True)
    numbers = {"rows": ROWS, "resamples": RESAMPLES, "pairs": chosen.pairs, "share_with_p_below_0.05": shares}
    print(write_result("equals", numbers, folder=chosen.out))


def share_called_different(repeats: int, deviation: float, pairs: int) -> float:
    """Return the share of pairs of equals whose p is below 0.05."""
    count = 0
    for pair in range(pairs):
        rng = np.random.default_rng([pair, repeats, round(10 * deviation)])
        right = draw_answers(rng, repeats, deviation)
        weights = rng.multinomial(ROWS, np.full(ROWS, 1 / ROWS), size=RESAMPLES)
        resampled = Resampled(right.mean(axis=1)[:, None], (weights @ right.T / ROWS)[:, :, None])
        # Configurations with the same seeds of training draw the same repeats, as in a report.
        first, second = (resampled.mean_of_drawn(range(start, start + repeats), [pair]) for start in (0, repeats))
        test = paired_bootstrap(
            float(first.observed[0, 0]), float(second.observed[0, 0]), first.drawn[:, 0, 0], second.drawn[:, 0, 0]
        )
        count += test.p < 0.05
    return round(count / pairs, 4)


def draw_answers(rng: np.random.Generator, repeats: int, deviation: float) -> npt.NDArray[np.float64]:
    """Return whether the repeats of two configurations answer each row rightly, 0 or 1, (2 * repeats, rows)."""
    of_row, of_both = rng.normal(0, 1, ROWS), rng.normal(0, 1, (2, 1, ROWS))
    of_repeat = rng.normal(0, deviation, (2, repeats, 1))
    chance = 1 / (1 + np.exp(-(0.5 + of_row + of_both + of_repeat)))
    return (rng.random((2, repeats, ROWS)) < chance).astype(np.float64).reshape(2 * repeats, ROWS)


if __name__ == "__main__":
    main()
