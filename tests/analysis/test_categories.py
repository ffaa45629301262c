"""Categories of a backbone's own classifier, beside what heads make of its vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emofuse.analysis.answers import read_tested
from emofuse.analysis.categories import PLACES_FILE, CategoryLayer, link_categories, read_layer
from emofuse.analysis.sections.categories import categories_figure, categories_table, category_sentences
from emofuse.statistics import Resampling


def save(path, **tensors):
    torch.save({name.replace("__", "."): tensor for name, tensor in tensors.items()}, path)
    return path


def test_the_last_layer_is_found_by_the_length_of_the_vector(tmp_path):
    weight, bias = torch.randn(365, 6), torch.randn(365)
    path = save(tmp_path / "net.pt", conv__weight=torch.randn(8, 6, 3, 3), fc__weight=weight, fc__bias=bias)
    layer = read_layer(path, 6)
    assert np.array_equal(layer.weight, weight.numpy())
    assert layer.names[12] == "category 12"
    vectors = np.random.default_rng(0).normal(size=(4, 6))
    expected = vectors @ weight.numpy().T + bias.numpy()
    assert layer.scores(vectors) == pytest.approx(expected - expected.mean(axis=1, keepdims=True), abs=1e-5)
    assert read_layer(path, 7) is None


def test_a_convolution_of_one_pixel_is_a_layer_and_one_of_zeros_is_none(tmp_path):
    weight = torch.randn(1000, 5, 1, 1)
    path = save(tmp_path / "net.pt", classifier__1__weight=weight, classifier__1__bias=torch.zeros(1000))
    layer = read_layer(path, 5)
    assert layer.weight.shape == (1000, 5)
    assert layer.names[:2] == ("tench", "goldfish")
    zero = save(tmp_path / "zero.pt", fc__weight=torch.zeros(1000, 5), fc__bias=torch.zeros(1000))
    assert read_layer(zero, 5) is None


def test_names_of_places_come_from_the_file_beside_the_weights(tmp_path):
    path = save(tmp_path / "places.pt", fc__weight=torch.randn(365, 3), fc__bias=torch.zeros(365))
    lines = [f"/{chr(97 + number % 26)}/place_{number}/indoor {number}" for number in range(365)]
    (tmp_path / PLACES_FILE).write_text("\n".join(lines) + "\n")
    assert read_layer(path, 3).names[30] == "place 30/indoor"


@pytest.fixture(scope="module")
def linked(planted, source_of):
    """Twelve categories of stream a, of which the first is its signal for joy and the second the opposite."""
    source = source_of("network")
    (tested,) = read_tested([source.chosen], source.runs)
    weight = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32) * 0.1
    weight[0], weight[1] = 1, -1
    layer = CategoryLayer(weight, np.zeros(12, np.float32), tuple(f"c{number}" for number in range(12)))
    found = link_categories(
        planted.cache, source.runs, tested, {"a": layer}, most_rows=2000, resampling=Resampling(200, 0)
    )
    return tested, found


def test_the_category_that_is_the_cue_of_a_class_goes_along_with_it(linked):
    tested, (found,) = linked
    joy = tested.classes.index("joy")
    assert found.names[int(found.correlations[joy].argmax())] == "c0"
    assert found.names[int(found.correlations[joy].argmin())] == "c1"
    first = next(link for link in found.links if link.class_place == joy)
    assert first.category == "c0"
    assert 0.8 < first.interval.low <= first.correlation <= first.interval.high
    assert np.abs(found.correlations).max() <= 1 + 1e-9


def test_categories_are_shown_by_class_with_intervals_and_their_limits(linked):
    tested, (found,) = linked
    table = categories_table(tested, found)
    assert table.table.rows[tested.classes.index("joy")][1].text.startswith("c0 +0.")
    assert {"class", "category", "correlation", "low", "high"} == set(table.rows[0])
    assert categories_figure(tested, found).stem == "categories_of_a"
    assert "resnet18: no weights" in category_sentences([], ["resnet18: no weights"])[0]
    assert "no category" in category_sentences([found], [])[0]
