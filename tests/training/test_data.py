"""What training may see of a cache: masked labels, folds, scaling, digests; everything read and fitted once."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.cache.reader import CachedStream, open_cache
from emofuse.errors import IncompleteCacheError, SpecError, TrainingError
from emofuse.features import derive
from emofuse.scaling import Scaling
from emofuse.specs import FeaturesSpec, FoldSpec, OfficialSplit, RunSpec, StratifiedSplit, TrainSpec
from emofuse.training import identity
from emofuse.training.data import TrainingData
from emofuse.training.streaming import Blocks, Window

STREAMS = ("resnet50", "lbp", "action_units")
SPLIT = OfficialSplit()


@pytest.fixture(scope="module")
def cache(tmp_path_factory, plant_cache):
    return plant_cache(tmp_path_factory.mktemp("data") / "features.zarr", block_rows=8)


def run(*streams, fold=None, split=SPLIT, name="run", train=None, **features):
    spec = FeaturesSpec(streams=streams or STREAMS, **features)
    return RunSpec(name=name, features=spec, fold=fold, split=split, train=TrainSpec(**(train or {})))


def in_folds(spec, count=3, seed=0):
    folds = [FoldSpec(count=count, index=index, seed=seed) for index in range(count)]
    return [spec.model_copy(update={"fold": fold}) for fold in folds]


# ---------------------------------------------------------------------------------------------- labels and folds


def test_no_label_is_there_but_those_of_training_and_validation_rows(cache):
    data = TrainingData.of(cache, SPLIT)
    seen = np.isin(cache.splits, ("train", "val"))
    assert np.array_equal(data.labels[seen], cache.labels[seen])
    assert set(data.labels[~seen]) == {-1}
    held = {id(value) for value in [*vars(data).values(), *vars(data.features).values()]}
    assert id(cache) not in held
    assert id(cache.labels) not in held


def test_a_plain_split_is_the_only_fold(cache):
    (fold,) = TrainingData.of(cache, SPLIT).folds(run())
    labelled = cache.labels >= 0
    assert fold.train.tolist() == np.flatnonzero((cache.splits == "train") & labelled).tolist()
    assert fold.val.tolist() == np.flatnonzero((cache.splits == "val") & labelled).tolist()


def test_folds_deal_out_train_and_val_rows_and_no_test_row(cache):
    data = TrainingData.of(cache, SPLIT)
    folds = data.folds(in_folds(run())[1])
    usable = np.flatnonzero(np.isin(cache.splits, ("train", "val")) & (cache.labels >= 0)).tolist()
    assert sorted(row for fold in folds for row in fold.val.tolist()) == usable
    for fold in folds:
        assert sorted([*fold.train.tolist(), *fold.val.tolist()]) == usable
        assert abs(len(fold.val) - len(usable) / 3) < 1
    assert data.folds(run(fold=FoldSpec(count=3, seed=1)))[0].val.tolist() != folds[0].val.tolist()


def test_a_stratified_split_is_made_of_the_labels(cache):
    data = TrainingData.of(cache, StratifiedSplit(seed=3))
    spec = run(split=StratifiedSplit(seed=3))
    (fold,) = data.folds(spec)
    assert (data.splits == "").sum() == 1  # the row without a label
    assert len(fold.train) == pytest.approx(0.7 * 149, abs=2)
    with pytest.raises(TrainingError, match=r"run 'run' has split .*seed=4.*, these rows have .*seed=3"):
        data.folds(run(split=StratifiedSplit(seed=4)))


def test_rows_that_cannot_be_folded_are_refused(tmp_path, plant_cache):
    labels = np.full(150, -1)
    labels[:3], labels[3:5] = (0, 1, 1), 1
    few = TrainingData.of(plant_cache(tmp_path / "few.zarr", labels=labels), SPLIT)
    with pytest.raises(TrainingError, match=r"5 folds need as many labelled rows in .*'val', got 4"):
        few.folds(run(fold=FoldSpec(count=5)))
    with pytest.raises(
        TrainingError, match=r"4 folds need as many rows of each label .*: 'fear' \(3 rows\), 'joy' \(1 "
    ):
        few.folds(run(fold=FoldSpec(count=4)))
    labels[0] = 1
    one = TrainingData.of(plant_cache(tmp_path / "one.zarr", labels=labels), SPLIT)
    with pytest.raises(TrainingError, match="all 3 training rows are labelled 'fear': a head needs at least two"):
        one.folds(run(fold=FoldSpec(count=4)))
    no_val = TrainingData.of(plant_cache(tmp_path / "no.zarr", splits=["train"] * 150), SPLIT)
    with pytest.raises(TrainingError, match=r"no labelled row has split 'val' \(to choose the epoch on\)\. Give"):
        no_val.folds(run())
    assert len(no_val.folds(run(fold=FoldSpec(count=2)))) == 2


# ---------------------------------------------------------------------------------------------- digests


def test_the_digest_of_a_searched_run_is_deaf_to_test_labels(cache, tmp_path, plant_cache):
    base = TrainingData.of(cache, SPLIT).digest(run())
    for split, same in (("test", True), ("val", False), ("train", False)):
        labels = cache.labels.copy()
        row = np.flatnonzero(cache.splits == split)[3]
        labels[row] = (labels[row] + 1) % 3
        other = plant_cache(tmp_path / f"{split}.zarr", labels=labels)
        assert (TrainingData.of(other, SPLIT).digest(run()) == base) is same


def test_the_digest_says_everything_but_the_name(cache):
    data = TrainingData.of(cache, SPLIT)
    runs = [
        run(),
        run("resnet50"),
        run(lbp_bins=128),
        run(train={"seed": 1}),
        run(train={"learning_rate": 1e-3}),
        *in_folds(run()),
        run(fold=FoldSpec(count=3, seed=1)),
    ]
    assert len({data.digest(spec) for spec in runs}) == len(runs)
    assert data.digest(run(name="other")) == data.digest(run())
    with pytest.raises(SpecError, match=r"features\.streams: 'resnet' is not in the cache, did you mean 'resnet50'"):
        data.digest(run("resnet"))


def test_rows_are_hashed_once_for_all_runs(cache, monkeypatch):
    data = TrainingData.of(cache, SPLIT)
    hashed = []
    monkeypatch.setattr(identity, "digest", lambda value: hashed.append(value) or "")
    for index in range(50):
        data.digest(run(train={"seed": index}))
    assert len(hashed) == 50
    assert all("sample_ids" not in str(value) for value in hashed)


# ---------------------------------------------------------------------------------------------- features


def test_every_stored_stream_is_read_once_whatever_the_number_of_runs(cache, monkeypatch):
    read = []
    whole = CachedStream.read
    monkeypatch.setattr(CachedStream, "read", lambda self, *args: read.append(self.name) or whole(self, *args))
    data = TrainingData.of(cache, SPLIT)
    for bins in (128, 256, 512):
        for streams in (STREAMS, ("lbp",), ("places365", "lbp")):
            specs = in_folds(run(*streams, lbp_bins=bins))
            data.table(specs)
            data.scaled_folds(specs)
    assert sorted(read) == ["action_units", "lbp", "places365", "resnet50"]


def test_the_table_holds_the_columns_of_all_runs(cache):
    data = TrainingData.of(cache, SPLIT)
    specs = [run("lbp", lbp_bins=128), run("resnet50", "lbp"), run("action_units", action_units=15)]
    table = data.table(specs)
    assert table.dims == {"lbp@128": (128,), "resnet50": (12,), "lbp@256": (256,), "action_units@15": (15,)}
    assert [data.member(spec).streams for spec in specs] == [
        ("lbp@128",),
        ("resnet50", "lbp@256"),
        ("action_units@15",),
    ]
    stored, status = cache.streams["lbp"].read()
    assert np.array_equal(table.features["lbp@256"].numpy(), derive("lbp", stored, (("bins", 256),)))
    assert np.array_equal(table.valid["lbp@256"].numpy(), status == 1)
    assert table.labels.numpy().tolist() == data.labels.tolist()


def test_an_unfinished_stream_is_refused(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "features.zarr")
    (cache.path / "streams" / "lbp" / "status" / "c.3.0").unlink()
    data = TrainingData.of(cache, SPLIT)
    with pytest.raises(IncompleteCacheError, match="'lbp' lacks 1 of 10 blocks"):
        data.table([run()])
    data.table([run("resnet50")])


def test_what_does_not_fit_beside_others_is_read_again(cache):
    tight = TrainingData.of(cache, SPLIT, memory_bytes=2 * 150 * 4 * (512 + 20))
    for _ in range(2):
        for bins in (128, 256, 512):
            for stream in ("lbp", "places365"):
                tight.table([run(stream, lbp_bins=bins)])
                held = sum(array.nbytes for array in tight.features._held.values())
                assert held <= 150 * 4 * (512 + 20) or len(tight.features._held) == 1


# ---------------------------------------------------------------------------------------------- scaling


def test_scaling_is_of_the_training_rows_of_each_fold(cache):
    data = TrainingData.of(cache, SPLIT)
    specs = in_folds(run())
    for fold, spec in zip(data.scaled_folds(specs), specs, strict=True):
        own = data.scaling(spec)
        for column in data.features.of(spec.features):
            stored, status = cache.streams[column.stream].read()
            rows = fold.train[status[fold.train] == 1]
            robust = column.kind == "action_units"
            expected = Scaling.fit(derive(column.kind, stored, column.choice), rows, robust=robust)
            for found in (fold.scaling[column.name], own[column.stream]):
                np.testing.assert_allclose(found.center, expected.center, rtol=1e-6)
                np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-6)


def test_a_stream_that_no_training_row_has_is_left_as_it_is(tmp_path, plant_cache):
    nobody = ("lbp", np.ones((150, 512), np.float32), np.full(150, 2, np.uint8))
    cache = plant_cache(tmp_path / "f.zarr", streams={"lbp": nobody})
    scaling = TrainingData.of(cache, SPLIT).scaling(run("lbp"))["lbp"]
    assert (set(scaling.center), set(scaling.scale), set(scaling.limit)) == ({0}, {1}, {0})
    assert not scaling.fitted


def test_scaling_is_fitted_once_for_all_subsets(cache, monkeypatch):
    fitted = []
    many, one = Scaling.fit_many.__func__, Scaling.fit.__func__
    monkeypatch.setattr(
        Scaling, "fit_many", classmethod(lambda c, b, s, f, **k: fitted.append(len(s)) or many(c, b, s, f, **k))
    )
    monkeypatch.setattr(Scaling, "fit", classmethod(lambda c, f, r, **k: fitted.append(1) or one(c, f, r, **k)))
    data = TrainingData.of(cache, SPLIT)
    for streams in (("lbp",), ("resnet50", "lbp"), STREAMS, ("lbp", "places365")):
        data.scaled_folds(in_folds(run(*streams)))
        data.scaled_folds(in_folds(run(*streams))[:1])
    assert sum(fitted) == 3 * 4  # three folds of four columns


def test_folds_that_no_run_uses_have_no_scaling(cache):
    data = TrainingData.of(cache, SPLIT)
    used = data.scaled_folds(in_folds(run())[1:2])
    assert [bool(fold.scaling) for fold in used] == [False, True, False]


def test_the_neutral_faces_are_those_of_the_fold(cache):
    data = TrainingData.of(cache, SPLIT)
    specs = in_folds(run(neutral_label="calm"))
    fold = data.scaled_folds(specs)[2]
    features, status = cache.streams["action_units"].read()
    calm = fold.train[(cache.labels[fold.train] == 2) & (status[fold.train] == 1)]
    center = fold.scaling["action_units@25"].center
    np.testing.assert_allclose(center, features[calm].mean(0)[:25], rtol=1e-5)
    plain = data.scaled_folds(in_folds(run()))[2]
    assert not np.allclose(plain.scaling["action_units@25"].center, center)
    assert np.array_equal(plain.scaling["lbp@256"].center, fold.scaling["lbp@256"].center)
    with pytest.raises(TrainingError, match=r"features\.neutral_label: 'clam' is no label .* did you mean 'calm'"):
        data.scaled_folds([run(neutral_label="clam")])


@pytest.mark.parametrize("count", [1, 2])
def test_the_deviation_of_all_faces_stands_in_where_neutral_ones_are_too_few(tmp_path, write_cache, count):
    generator = np.random.default_rng(5)
    features = generator.normal(3, 2, (40, 30)).astype(np.float32)
    labels = np.array([2] * count + [0, 1] * 19 + [0] * (2 - count))
    splits = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    streams = {"action_units": ("action_units", features, np.ones(40, np.uint8))}
    own = open_cache(write_cache(tmp_path / "f.zarr", ("a", "b", "calm"), labels, splits, streams))
    few, all_faces = (
        TrainingData.of(own, SPLIT).scaling(run("action_units", **options))["action_units"]
        for options in ({"neutral_label": "calm"}, {"neutral_label": "a"})
    )
    np.testing.assert_allclose(few.center, features[:count, :25].mean(0), rtol=1e-5)
    np.testing.assert_allclose(few.scale, features[:24, :25].std(0), rtol=1e-5)
    assert few.fitted
    assert np.abs(few.apply(features[:24, :25], np.ones(24, bool))).max() < 10
    assert not np.allclose(all_faces.scale, few.scale)


def test_features_that_are_not_finite_are_refused_with_the_remedy(tmp_path, plant_cache):
    broken = np.ones((150, 8), np.float32)
    broken[0] = np.inf
    cache = plant_cache(tmp_path / "f.zarr", streams={"places365": ("backbone", broken, np.ones(150, np.uint8))})
    with pytest.raises(TrainingError, match=r"stream 'places365': .* not finite.* emofuse cache drop CACHE places365"):
        TrainingData.of(cache, SPLIT).scaled_folds([run("places365")])


# ---------------------------------------------------------------------------------------------- memory


def test_a_run_whose_features_do_not_fit_is_streamed_whatever_trains_beside_it(cache):
    data = TrainingData.of(cache, SPLIT, memory_bytes=2 * 150 * 4 * 200)
    assert data.window(run("resnet50", "places365")) is None
    wide = data.window(run("lbp"))
    assert isinstance(wide, Window)
    assert data.window(run("lbp", "resnet50")) == wide  # one window for all runs: they can train together
    assert wide.block_rows == 8
    assert isinstance(data.table([run("lbp")]).features, Blocks)
    assert not isinstance(data.table([run("resnet50")]).features, Blocks)


def test_the_window_is_part_of_the_digest(cache):
    specs = run("lbp"), run("resnet50")
    plenty, little = (TrainingData.of(cache, SPLIT, memory_bytes=memory) for memory in (10**9, 2 * 150 * 4 * 200))
    assert plenty.digest(specs[0]) != little.digest(specs[0])
    assert plenty.digest(specs[1]) == little.digest(specs[1])


def test_scaling_has_the_same_bits_from_memory_and_block_by_block(cache):
    plenty, little = (TrainingData.of(cache, SPLIT, memory_bytes=memory) for memory in (10**9, 2 * 150 * 4 * 250))
    specs = in_folds(run(*STREAMS, lbp_bins=512))
    assert little.window(specs[0])
    assert not plenty.window(specs[0])
    for ours, theirs in zip(little.scaled_folds(specs), plenty.scaled_folds(specs), strict=True):
        for name, scaling in theirs.scaling.items():
            assert np.array_equal(ours.scaling[name].center, scaling.center)
            assert np.array_equal(ours.scaling[name].scale, scaling.scale)


def test_a_memory_that_holds_no_window_is_refused(cache):
    with pytest.raises(TrainingError, match=r"3 blocks of 8 rows take .* GB. Give more memory, or train fewer"):
        TrainingData.of(cache, SPLIT, memory_bytes=1000).window(run("lbp"))
