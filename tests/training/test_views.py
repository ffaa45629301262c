"""Augmented views in training: rows show them, validation never does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_views
from emofuse.cache.writer import write_block
from emofuse.errors import IncompleteCacheError, TrainingError
from emofuse.scaling import Scaling
from emofuse.specs import ConcatHeadSpec, FeaturesSpec, OfficialSplit, RunSpec, TrainSpec
from emofuse.training.batches import ViewDraws
from emofuse.training.data import TrainingData
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.together import train_together

ROWS, DIM = 60, 5
EXACT = Machine(torch.device("cpu"), dtype=torch.float64)
HEAD = ConcatHeadSpec(embed_dim=6, depth=1, width=6)
SPLITS = ["train"] * 40 + ["val"] * 12 + ["test"] * 8


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64)
    return features, torch.randint(3, (ROWS,), generator=generator)


def trained(*views, valid=None, **train):
    labels = drawn(0)[1]
    stacked = torch.cat(views)
    valid = torch.ones(len(stacked), dtype=torch.bool) if valid is None else valid
    table = FeatureTable({"x": stacked}, {"x": valid}, labels, 3, len(views))
    scaling = Scaling(np.zeros(DIM, np.float32), np.ones(DIM, np.float32))
    fold = Fold(np.arange(40), np.arange(40, 52), {"x": scaling})
    spec = TrainSpec(epochs=4, batch_size=16, learning_rate=1e-2, views=len(views), **train)
    (result,) = train_group(table, [fold], [Member(("x",), HEAD, spec)], EXACT)
    return result


def test_views_that_are_all_the_picture_itself_change_nothing():
    picture, _ = drawn(0)
    plain, thrice = trained(picture), trained(picture, picture, picture)
    assert plain.history == thrice.history
    assert all(np.array_equal(plain.weights[name], thrice.weights[name]) for name in plain.weights)


def test_training_looks_at_other_views_and_validation_only_at_the_picture():
    picture, _ = drawn(0)
    other = drawn(1)[0]
    one, two = trained(picture, picture), trained(picture, other)
    assert one.history[0]["train_loss"] != two.history[0]["train_loss"]
    changed = other.clone()
    changed[40:] = torch.nan  # views of rows that do not train
    assert trained(picture, changed).history == two.history


def test_a_view_without_a_face_is_a_row_without_the_stream():
    picture, _ = drawn(0)
    valid = torch.ones(2 * ROWS, dtype=torch.bool)
    valid[ROWS:] = False
    masked = trained(picture, torch.full_like(picture, torch.nan), valid=valid)
    assert all(np.isfinite(entry["train_loss"]) for entry in masked.history)
    assert masked.history != trained(picture, picture).history


def test_every_row_shows_every_view_about_equally_often_and_others_in_the_next_epoch():
    draws = ViewDraws(300, 3, torch.Generator().manual_seed(0))
    epochs = torch.stack([draws.of_epoch() for _ in range(90)])
    assert (epochs % 300 == torch.arange(300)).all()
    counts = torch.stack([(epochs // 300 == view).sum(0) for view in range(3)]).float()
    assert counts.mean(1).tolist() == pytest.approx([30, 30, 30], abs=1)
    assert counts.min() > 8
    assert not torch.equal(epochs[0], epochs[1])


@pytest.fixture
def path(tmp_path, write_cache):
    picture, labels = drawn(0)
    streams = {"x": ("backbone", picture.numpy().astype(np.float32), np.ones(ROWS, np.uint8))}
    return write_cache(tmp_path / "c.zarr", ["a", "b", "c"], labels.numpy(), SPLITS, streams)


def add_view(path, features, augment):
    add_views(path, "x", 2, augment)
    ones, zeros = np.ones(ROWS, np.uint8), np.zeros(ROWS, np.uint8)
    write_block(path, "x", 0, features=features.numpy().astype(np.float32), status=ones, flags=zeros, view=1)


def run(views, **changes):
    train = TrainSpec(epochs=3, batch_size=16, learning_rate=1e-2, views=views)
    return RunSpec(name="x", features=FeaturesSpec(streams=("x",)), head=HEAD, train=train, **changes)


def group(path, spec):
    (found,) = train_together(TrainingData.of(open_cache(path), OfficialSplit()), [spec], EXACT)
    return found


def test_a_run_draws_from_the_cached_views(path):
    plain = group(path, run(1))
    add_view(path, drawn(1)[0], {"seed": 0})
    assert group(path, run(1)).digest == plain.digest
    both = group(path, run(2))
    assert both.result.history != plain.result.history
    assert both.digest != plain.digest


def test_other_draws_are_another_run(path):
    add_view(path, drawn(1)[0], {"seed": 0})
    data = TrainingData.of(open_cache(path), OfficialSplit())
    first = data.digest(run(2))
    add_views(path, "x", 3, {"seed": 1})
    assert TrainingData.of(open_cache(path), OfficialSplit()).digest(run(2)) != first


def test_views_that_were_not_built_are_named(path):
    with pytest.raises(
        IncompleteCacheError, match=r"'x' has 1 of 2 views of each sample\. Build the cache with `views: 2`"
    ):
        group(path, run(2))


def test_views_that_do_not_fit_the_memory_are_refused_and_not_streamed(path):
    add_view(path, drawn(1)[0], {"seed": 0})
    data = TrainingData.of(open_cache(path), OfficialSplit(), memory_bytes=3000)
    with pytest.raises(TrainingError, match=r"2 views of run 'x' take .* GB and are not streamed"):
        data.window(replace_views(run(1), 2))


def replace_views(spec, views):
    return spec.model_copy(update={"train": spec.train.model_copy(update={"views": views})})
