"""Principal components of streams: fitted on the training rows of a fold alone, the same as scikit-learn's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import decomposition
from test_engine import EXACT, SMALL, assert_equal, make_table

from emofuse.cache.reader import open_cache
from emofuse.errors import SpecError, TrainingError
from emofuse.estimators import FusionClassifier, FusionRegressor
from emofuse.probe import ProbeOptions, probe_cache
from emofuse.results import read_predictions, read_record, run_dir
from emofuse.scaling import Scaling, blocks_of, fit_projections, with_projections
from emofuse.specs import RunSpec, SweepSpec, parse_spec
from emofuse.status import Status
from emofuse.sweep.configurations import StreamType, expand
from emofuse.training.data import TrainingData
from emofuse.training.engine import train_group
from emofuse.training.members import Fold, Member, ProjectedStream
from emofuse.training.planning import plan_runs
from emofuse.training.runs import train_runs
from emofuse.training.together import train_together
from emofuse.training.trained import load_head

ROWS, DIM = 150, 12
HEAD = {"kind": "concat", "embed_dim": 8, "depth": 1, "width": 8}
TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2}


def correlated(rows, dim, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, dim)) @ rng.normal(size=(dim, dim)) * 3 + 5).astype(np.float32)


def projected(x, rows, wanted, **steps):
    scaling = Scaling.fit(x, rows, **steps)
    (fitted,) = with_projections(
        "x", [scaling], lambda: blocks_of(x), [rows], wanted=wanted, shape=x.shape[1:], **steps
    )
    return scaling, fitted


def sklearn_components(standardised, wanted):
    fitted = decomposition.PCA(n_components=wanted, svd_solver="full").fit(standardised.astype(np.float64))
    places = np.abs(fitted.components_).argmax(axis=1)
    signs = np.sign(fitted.components_[np.arange(len(places)), places])
    return fitted, fitted.components_ * signs[:, None]


# ---------------------------------------------------------------------------------------------------------- the fit


@pytest.mark.parametrize("wanted", [0.5, 0.95, 0.999, 1, 5, 12])
@pytest.mark.parametrize("count", [100, 9])
def test_the_components_are_those_of_scikit_learn_on_the_standardised_training_rows(wanted, count):
    if wanted == 12 and count == 9:
        pytest.skip("more components than rows")
    x, rows = correlated(ROWS, DIM), np.arange(0, count)
    scaling, fitted = projected(x, rows, wanted)
    standardised = scaling.apply(x, np.ones(ROWS, bool))
    expected, components = sklearn_components(standardised[rows], wanted)
    assert fitted.projection.width == expected.n_components_
    np.testing.assert_allclose(fitted.projection.components, components, atol=2e-5)
    np.testing.assert_allclose(fitted.projection.variances, expected.explained_variance_ratio_, atol=1e-6)
    ours = fitted.apply(x, np.ones(ROWS, bool))
    theirs = (standardised - expected.mean_) @ components.T
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert fitted.shape_of_rows((DIM,)) == (expected.n_components_,)


def test_components_are_not_whitened_and_have_the_same_signs_however_the_rows_come():
    x = correlated(ROWS, DIM)
    rows = np.arange(100)
    _, fitted = projected(x, rows, 4)
    values = fitted.apply(x, np.ones(ROWS, bool))[rows]
    variances = values.var(axis=0)
    assert (np.diff(variances) < 0).all()
    assert variances[0] > 2 * variances[-1]
    order = np.random.default_rng(1).permutation(100)
    _, other = projected(x[np.concatenate([order, np.arange(100, ROWS)])], rows, 4)
    np.testing.assert_allclose(other.projection.components, fitted.projection.components, atol=1e-5)
    places = np.abs(fitted.projection.components).argmax(axis=1)
    assert (fitted.projection.components[np.arange(4), places] > 0).all()


def test_blocks_give_the_components_that_the_whole_table_gives():
    x, rows = correlated(300, 8), np.arange(0, 300, 2)
    scaling = Scaling.fit(x, rows)

    def blocks():
        yield from ((first, x[first : first + 7]) for first in range(0, 300, 7))

    (ours,) = with_projections("x", [scaling], blocks, [rows], wanted=3, shape=(8,))
    _, whole = projected(x, rows, 3)
    np.testing.assert_allclose(ours.projection.components, whole.projection.components, atol=1e-6)


def test_rows_that_do_not_train_and_rows_without_the_stream_count_for_nothing():
    x, rows = correlated(ROWS, DIM), np.arange(60)
    _, plain = projected(x, rows, 0.9)
    poisoned = x.copy()
    poisoned[60:] = np.nan
    _, after = projected(poisoned, rows, 0.9)
    assert np.array_equal(plain.projection.components, after.projection.components)
    valid = np.ones(ROWS, bool)
    valid[60:] = False
    values = after.apply(poisoned, valid)
    assert not values[60:].any()
    assert np.isfinite(values).all()


@pytest.mark.parametrize("shape", [(4, 6), (6, 3, 2), (4, 6, 3, 2)])
def test_of_sequences_every_step_is_projected_and_of_maps_every_position(shape):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    axis = -3 if len(shape) > 2 else -1
    x = np.moveaxis(np.moveaxis(rng.normal(size=(40, *shape)), axis, -1) @ mix, -1, axis).astype(np.float32)
    steps = rng.random((40, 4)) > 0.3 if len(shape) in {2, 4} else None
    given = {} if steps is None else {"steps": steps}
    rows = np.arange(30)
    scaling, fitted = projected(x, rows, 3, **given)
    width = list(shape)
    width[axis] = 3
    valid = np.ones(40, bool)
    ours = fitted.apply(x, valid, steps)
    assert ours.shape == (40, *width) == (40, *fitted.shape_of_rows(shape))
    standardised = scaling.apply(x, valid, steps)
    tokens = np.moveaxis(standardised, axis, -1)
    seen = tokens[rows].reshape(-1, 6) if steps is None else tokens[rows][steps[rows]].reshape(-1, 6)
    expected, components = sklearn_components(seen, 3)
    theirs = np.moveaxis((tokens - expected.mean_) @ components.T, -1, axis)
    if steps is not None:
        theirs[~steps] = 0
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_stream_without_variance_and_a_stream_of_no_row_have_components_of_zero():
    constant = np.full((20, 3), 2.0, np.float32)
    _, fitted = projected(constant, np.arange(10), 0.9)
    assert fitted.projection.width == 1
    assert not fitted.apply(constant, np.ones(20, bool)).any()
    _, unseen = projected(constant, np.arange(0), 2)
    assert not unseen.fitted
    assert unseen.projection.width == 2


def test_more_components_than_rows_and_matrices_that_do_not_fit_are_refused(monkeypatch):
    with pytest.raises(
        TrainingError, match=r"stream 'x': pca: 20 components need at least as many training rows, .* has 10\. Ask for"
    ):
        projected(correlated(ROWS, 30), np.arange(10), 20)
    monkeypatch.setattr("emofuse.scaling.projection.MOST_BYTES", 1000)
    with pytest.raises(TrainingError, match=r"'x': pca of 30 features needs a matrix of .* GB for each fold, and may"):
        fit_projections("x", lambda: iter(()), [40], 30, 0.9)


# ---------------------------------------------------------------------------------------------- groups of heads


def test_heads_of_other_widths_train_in_one_group_as_they_do_alone_on_projected_features():
    table = make_table(rows=90, missing=0.2)
    rows = np.random.default_rng(2).permutation(90)
    pairs = [(np.sort(rows[30:]), np.sort(rows[:30])), (np.sort(rows[:60]), np.sort(rows[60:]))]
    widths, alone, folds = [3, 5], [], []
    for number, (train, val) in enumerate(pairs):
        scaling = {}
        for name, x in table.features.items():
            there = train[table.valid[name][train].numpy()]
            scaling[name] = Scaling.fit(x.numpy(), there)
            if name == "mobilenet_v3.small":
                (of_fold,) = with_projections(
                    name, [scaling[name]], lambda x=x: blocks_of(x.numpy()), [there], wanted=widths[number], shape=(7,)
                )
                unseen = replace(scaling[name], fitted=False)
                scaling |= {f"{name}@pca@{width}": unseen for width in widths}
                scaling[f"{name}@pca@{widths[number]}"] = of_fold
                plain = of_fold.apply(x.numpy(), table.valid[name].numpy())
        folds.append(Fold(train, val, scaling))
        identity = Scaling(np.zeros(widths[number], np.float32), np.ones(widths[number], np.float32))
        features = {**table.features, "mobilenet_v3.small": torch.from_numpy(plain)}
        alone.append((replace(table, features=features), {**scaling, "mobilenet_v3.small": identity}))
    grouped = replace(
        table,
        projected={f"mobilenet_v3.small@pca@{width}": ProjectedStream("mobilenet_v3.small", width) for width in widths},
    )
    train = parse_spec(RunSpec, {"name": "a", "features": {"streams": ["x"]}, "train": TRAIN}, "test").train
    members = [
        Member((f"mobilenet_v3.small@pca@{widths[fold]}", "lbp"), SMALL, train.model_copy(update={"seed": seed}), fold)
        for fold in range(2)
        for seed in range(2)
    ]
    for member, result in zip(members, train_group(grouped, folds, members, EXACT), strict=True):
        own_table, scaling = alone[member.fold]
        own_folds = [replace(fold, scaling=scaling) for fold in folds]
        own = replace(member, streams=("mobilenet_v3.small", "lbp"))
        (expected,) = train_group(own_table, own_folds, [own], EXACT)
        assert result.weights.keys() == expected.weights.keys()
        for name, array in expected.weights.items():
            np.testing.assert_allclose(result.weights[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
        assert_equal(train_group(grouped, folds, [member], EXACT)[0], result)


# ----------------------------------------------------------------------------------------------------------- runs


def run(pca, name="a", **changes):
    streams = {"resnet50": {"pca": pca}, "places365": {}} if pca is not None else ["resnet50", "places365"]
    plain = {"name": name, "features": {"streams": streams}, "head": HEAD, "train": TRAIN}
    return parse_spec(RunSpec, plain | changes, "test")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fold": {"count": 3, "index": 1}},
        {"refit": "train_val"},
        {"ensemble": {"folds": 3}},
        {"head": {"kind": "logistic"}},
        {"head": {"kind": "averaged_logistic"}},
        {"head": {"kind": "kernel_ridge"}},
    ],
)
def test_a_saved_run_predicts_what_it_predicted_when_it_was_scored(tmp_path, plant_cache, changes):
    cache = plant_cache(tmp_path / "c.zarr")
    ((record, _),) = train_runs(cache, [run(0.6, **changes)], tmp_path / "runs", device="cpu")
    folder = run_dir(tmp_path / "runs", record.digest)
    predictions = read_predictions(folder)
    rows = [list(cache.sample_ids).index(sample) for sample in predictions.sample_id]
    trained = load_head(folder)
    features = {name: cache.streams[name].read(0, np.float32)[0][rows] for name in ("resnet50", "places365")}
    status = {name: np.full(len(rows), Status.OK, np.uint8) for name in features}
    np.testing.assert_allclose(trained.outputs(features, status), predictions.outputs, atol=1e-5)
    recorded = read_record(folder).streams["resnet50"]["pca"]
    assert recorded["wanted"] == 0.6
    assert len(recorded["components"]) == len(trained.heads)
    assert min(recorded["variance"]) > 0.6
    assert all(1 <= width < 12 for width in recorded["components"])
    assert "pca" not in read_record(folder).streams["places365"]


def test_a_run_with_components_has_another_digest_and_one_without_has_the_old_one(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "c.zarr")
    data = TrainingData.of_run(cache, run(None))
    digests = [data.digest(run(pca)) for pca in (None, 0.6, 3)]
    assert len(set(digests)) == 3
    assert "pca" not in json.dumps(run(None).model_dump(mode="json"))


def test_components_are_fitted_on_the_training_rows_of_the_fold_alone(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "c.zarr")
    spec = run(0.6, fold={"count": 3, "index": 1})
    data = TrainingData.of_run(cache, spec)
    scaling = data.scaling(spec)["resnet50"]
    x, _ = cache.streams["resnet50"].read(0, np.float32)
    fold = data.folds(spec)[1]
    standardised = replace(scaling, projection=None).apply(x, np.ones(len(x), bool))
    expected, components = sklearn_components(standardised[fold.train], 0.6)
    assert scaling.projection.width == expected.n_components_
    np.testing.assert_allclose(scaling.projection.components, components, atol=2e-5)


def test_folds_of_a_run_train_in_one_group_and_as_they_do_alone(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "c.zarr")
    specs = [run(0.8, fold={"count": 3, "index": index}) for index in range(3)]
    data = TrainingData.of_run(cache, specs[0])
    assert len(plan_runs(data, specs, machine=EXACT).groups) == 1
    for spec, trained in zip(specs, train_together(data, specs, EXACT), strict=True):
        (alone,) = train_together(TrainingData.of_run(cache, spec), [spec], EXACT)
        assert_equal(alone.result, trained.result)
        assert trained.parameters == alone.parameters


def test_streamed_runs_see_the_components_that_runs_in_memory_see(tmp_path, write_cache):
    labels = np.random.default_rng(1).integers(0, 3, ROWS)
    streams = {name: ("backbone", correlated(ROWS, dim), np.ones(ROWS, np.uint8)) for name, dim in
               (("resnet50", DIM), ("places365", 8))}  # fmt: skip
    splits = ["train", "train", "train", "val", "test"] * (ROWS // 5)
    cache = open_cache(write_cache(tmp_path / "c.zarr", ["a", "b", "c"], labels, splits, streams, block_rows=16))
    specs = [run(pca, fold={"count": 2, "index": index}) for pca in (3, 0.8) for index in range(2)]
    streamed = TrainingData.of_run(cache, specs[0], memory_bytes=20_000)
    assert streamed.window(specs[0]) is not None
    data = TrainingData.of_run(cache, specs[0])
    for spec in specs:
        assert np.array_equal(
            streamed.scaling(spec)["resnet50"].projection.components,
            data.scaling(spec)["resnet50"].projection.components,
        )
    together = train_together(streamed, specs, EXACT)
    for spec, trained in zip(specs, together, strict=True):
        (alone,) = train_together(streamed, [spec], EXACT)
        assert_equal(alone.result, trained.result)


def test_components_are_a_factor_of_sweeps():
    spec = parse_spec(SweepSpec, {"name": "s", "factors": {"streams": [["x"]], "pca": ["none", 0.95, 64]}}, "test")
    configurations = expand(spec, {"x": StreamType("backbone")})
    assert [each.name for each in configurations] == ["pca=none", "pca=0.95", "pca=64"]
    assert [each.run.features.variants for each in configurations] == [
        {},
        {"x": {"pca": 0.95}},
        {"x": {"pca": 64}},
    ]


@pytest.mark.parametrize(
    ("pca", "message"),
    [
        (1.5, r"features\.streams\.resnet50\.pca: a share of the variance is above 0 and below 1, got 1\.5"),
        (0, r"features\.streams\.resnet50\.pca: must be at least 1 component, got 0"),
        (True, r"features\.streams\.resnet50\.pca: must be a share of the variance such as 0\.95, or a number"),
        ("all", r"features\.streams\.resnet50\.pca: must be a share .*, got 'all'"),
        (13, r"features\.streams\.resnet50\.pca: 13 components of 12 features; ask for fewer"),
    ],
)
def test_components_that_a_stream_cannot_have_are_named(tmp_path, plant_cache, pca, message):
    cache = plant_cache(tmp_path / "c.zarr")
    with pytest.raises(SpecError, match=message):
        TrainingData.of_run(cache, run(pca)).member(run(pca))


def test_a_factor_that_no_stream_can_have_is_named():
    with pytest.raises(
        SpecError, match=r"factors\.pca\[1\]: a share of the variance is above 0 and below 1.*, or none"
    ):
        parse_spec(SweepSpec, {"name": "s", "factors": {"pca": ["none", 1.5]}}, "test")


# ------------------------------------------------------------------------------------------ probes and estimators


def test_a_probe_looks_at_the_components(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "c.zarr")
    options = ProbeOptions(streams=("resnet50", "places365"), folds=3, resamples=20)
    plain = probe_cache(cache, options=options)
    projected = probe_cache(cache, options=replace(options, pca=2))
    assert {model.streams for model in projected.models} == {model.streams for model in plain.models}
    assert projected.models[0].loss != plain.models[0].loss
    whole = probe_cache(cache, options=replace(options, pca=8))
    assert [m.loss for m in whole.models if m.streams == ("places365",)] == pytest.approx(
        [m.loss for m in plain.models if m.streams == ("places365",)], rel=1e-3
    )  # all components are a rotation, which no kernel sees


@pytest.mark.parametrize("head", ["kernel_ridge", "logistic", {"kind": "linear"}])
@pytest.mark.parametrize("pca", [0.7, 3, {"a": 0.7}])
def test_estimators_see_components_fitted_in_each_fold(head, pca):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    x = {"a": correlated(60, 8) + 40 * labels[:, None], "b": correlated(60, 5, seed=1)}
    model = FusionClassifier(head=head, train={"epochs": 5, "learning_rate": 0.01}, folds=3, device="cpu", pca=pca)
    probs = model.fit(x, labels).predict_proba(x)
    assert np.allclose(probs.sum(axis=1), 1)
    if isinstance(head, str):
        assert (model.predict(x) == labels).mean() > 0.6
    for each in model._heads:
        assert each.scaling["a"].projection is not None
        assert (each.scaling["b"].projection is None) == isinstance(pca, dict)
    regressor = FusionRegressor(head={"kind": "kernel_ridge"}, device="cpu", pca=pca).fit(x, labels.astype(float))
    assert regressor.predict(x).shape == (60,)


def test_estimators_name_components_that_x_cannot_have():
    x, y = {"a": correlated(20, 4)}, np.arange(20) % 2
    with pytest.raises(ValueError, match=r"pca: X has no stream 'b' \(there are: a\)"):
        FusionClassifier(pca={"b": 2}).fit(x, y)
    with pytest.raises(ValueError, match=r"pca of stream 'a': 9 components of 4 features; ask for fewer"):
        FusionClassifier(pca=9).fit(x, y)
    with pytest.raises(ValueError, match=r"pca of stream 'a': a share of the variance is above 0 and below 1"):
        FusionClassifier(pca=2.5).fit(x, y)


def test_caches_open_again_after_a_run_with_components(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "c.zarr")
    train_runs(cache, [run(2)], tmp_path / "runs", device="cpu")
    assert open_cache(tmp_path / "c.zarr").streams.keys() == cache.streams.keys()


def test_tables_of_sweeps_have_the_components_of_all_streams_or_of_each():
    from emofuse.specs import FeaturesSpec
    from emofuse.sweep.table import _pca_cell

    def cell(streams):
        return _pca_cell(FeaturesSpec(streams=streams).model_dump(mode="json")["streams"])

    assert cell(["a", "b"]) == {}
    assert cell({"a": {"pca": 0.95}, "b": {"pca": 0.95}}) == {"pca": 0.95}
    assert cell({"a": {"pca": 0.95}, "b": {}}) == {"pca": "a 0.95"}
    assert cell({"a": {"pca": 0.95}, "b": {"pca": 8}}) == {"pca": "a 0.95, b 8"}
