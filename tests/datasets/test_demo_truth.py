from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

from emofuse.datasets.demo import truth
from emofuse.datasets.demo.truth import CLASSES, CUES, LIES, describe_truth, plan_samples, true_bits

SUBSETS = ["+".join(s) for size in (1, 2, 3) for s in itertools.combinations(sorted(CUES), size)]


def describe(samples):
    return describe_truth([sample.as_json() for sample in samples], LIES)


def likelihood(label, observed):
    """P(observed bits | label)."""
    bits = true_bits(label)
    return math.prod(1 - LIES[cue] if bits[cue] == bit else LIES[cue] for cue, bit in observed.items())


def best_accuracy(cues):
    """Expected accuracy of the best classifier that sees these cues: over all bits, the sum of max P(label, bits)."""
    observations = (dict(zip(cues, bits, strict=True)) for bits in itertools.product((0, 1), repeat=len(cues)))
    return sum(max(likelihood(label, seen) for label in CLASSES) / len(CLASSES) for seen in observations)


def oracle_accuracy(samples, cues):
    """What the best classifier scores on these very rows: labels of the highest posterior share the point."""
    score = 0.0
    for sample in samples:
        observed = {cue: sample.shown[cue] for cue in cues if sample.shown[cue] is not None}
        chances = {label: likelihood(label, observed) for label in CLASSES}
        best = [label for label in CLASSES if chances[label] > max(chances.values()) - 1e-12]
        score += (sample.label in best) / len(best)
    return score / len(samples)


def test_every_label_has_bits_of_its_own_and_positive_emotions_smile():
    bits = {label: tuple(true_bits(label)[cue] for cue in CUES) for label in CLASSES}
    assert sorted(bits.values()) == sorted(itertools.product((0, 1), repeat=3))
    smiling = [label for label in CLASSES if true_bits(label)["expression"] == 0]
    assert smiling == ["amusement", "awe", "contentment", "excitement"]


def test_reachable_accuracy_names_all_seven_subsets():
    assert list(describe(plan_samples(48, 0))["reachable_accuracy"]) == SUBSETS


@pytest.mark.parametrize("subset", SUBSETS)
def test_reachable_accuracy_equals_the_posterior_enumerated(subset):
    samples = plan_samples(200, 3)
    cues = subset.split("+")
    expected = sum(best_accuracy([cue for cue in cues if sample.shown[cue] is not None]) for sample in samples)
    assert describe(samples)["reachable_accuracy"][subset] == pytest.approx(expected / len(samples), abs=1e-12)


@pytest.mark.parametrize("subset", SUBSETS)
def test_an_oracle_scores_the_reachable_accuracy(subset):
    samples = plan_samples(6000, 1)
    assert oracle_accuracy(samples, subset.split("+")) == pytest.approx(
        describe(samples)["reachable_accuracy"][subset], abs=0.01
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_test_split_of_the_default_demo_is_neither_easy_nor_hard_by_luck(seed):
    samples = plan_samples(800, seed)
    test = [sample for sample in samples if sample.split == "test"]
    reachable = describe(samples)["reachable_accuracy"]
    for subset in SUBSETS:
        assert oracle_accuracy(test, subset.split("+")) == pytest.approx(reachable[subset], abs=0.035), subset


def test_rows_without_any_visible_cue_count_as_chance():
    rows = [{"cues": {cue: {"true": "a", "shown": None} for cue in CUES}}]
    assert set(describe_truth(rows, LIES)["reachable_accuracy"].values()) == {1 / 8}


def test_labels_and_splits_are_balanced():
    samples = plan_samples(800, 0)
    assert Counter(sample.label for sample in samples) == dict.fromkeys(CLASSES, 100)
    counts = Counter((sample.split, sample.label) for sample in samples)
    assert counts == {(s, c): n for s, n in (("train", 60), ("val", 15), ("test", 25)) for c in CLASSES}


def test_24_images_fill_every_split_with_every_label():
    counts = Counter((sample.split, sample.label) for sample in plan_samples(24, 0))
    assert counts == {(s, c): 1 for s in ("train", "val", "test") for c in CLASSES}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_faces_and_lies_have_their_share_in_every_split(split):
    rows = [sample for sample in plan_samples(800, 2) if sample.split == split]
    assert sum(not row.has_face for row in rows) == pytest.approx(truth.NO_FACE_SHARE * len(rows), abs=1)
    for cue in CUES:
        seen = [row for row in rows if row.shown[cue] is not None]
        lies = sum(row.shown[cue] != true_bits(row.label)[cue] for row in seen)
        assert lies == pytest.approx(LIES[cue] * len(seen), abs=1)


def test_cues_lie_independently():
    samples = [sample for sample in plan_samples(20000, 0) if None not in sample.shown.values()]
    for one, other in itertools.combinations(CUES, 2):
        both = sum(all(s.shown[cue] != true_bits(s.label)[cue] for cue in (one, other)) for s in samples)
        assert both / len(samples) == pytest.approx(LIES[one] * LIES[other], abs=0.003)


def test_corrupt_rows_show_nothing_and_faceless_rows_show_the_scene_alone():
    samples = plan_samples(800, 0)
    damaged = [sample for sample in samples if sample.damage is not None]
    assert Counter(sample.damage for sample in damaged) == {"truncated": 2, "noise": 2}
    for sample in samples:
        seen = {cue for cue in CUES if sample.shown[cue] is not None}
        assert seen == (set() if sample.damage else set(CUES) if sample.has_face else {"scene"})


def test_even_a_small_demo_has_two_corrupt_files():
    assert sum(sample.damage is not None for sample in plan_samples(24, 7)) == 2


def test_ids_are_unique_and_have_gaps():
    samples = plan_samples(200, 0)
    ids = [sample.sample_id for sample in samples]
    assert len(set(ids)) == len(ids)
    numbers = sorted(int(name[-5:]) for name in ids if name.startswith("awe_"))
    assert {b - a for a, b in itertools.pairwise(numbers)} == {1, 2, 3}


def test_the_plan_depends_on_seed_and_size_alone():
    assert plan_samples(48, 5) == plan_samples(48, 5)
    assert plan_samples(48, 5) != plan_samples(48, 6)
