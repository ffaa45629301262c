"""Factors to configurations: what is tried, in which order, under which name, and that nothing is tried twice."""

from __future__ import annotations

import hashlib
import itertools
import json
import math

import pytest
from small_question import add_sequence_and_map, planted

from emofuse.cache.reader import open_cache
from emofuse.errors import SpecError
from emofuse.heads.members import HeadMember, Members
from emofuse.heads.stems import StemChoice, make_stem
from emofuse.specs import (
    AttentionHeadSpec,
    BaseRun,
    ConcatHeadSpec,
    CrossValidation,
    Factors,
    FoldSpec,
    GatedHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    LogisticHeadSpec,
    Range,
    RunSpec,
    StratifiedSplit,
    SweepSpec,
    TrainSpec,
    parse_spec,
)
from emofuse.sweep.configurations import (
    Space,
    StreamType,
    baseline_streams,
    expand,
    runs_of,
    stream_subsets,
)
from emofuse.sweep.searching import stream_types

TYPES = {
    "lbp": StreamType("lbp"),
    "landmarks": StreamType("landmarks"),
    "action_units": StreamType("action_units"),
    "places365": StreamType("places365"),
    "objects": StreamType("objects"),
    "resnet50": StreamType("backbone"),
}
SHAPES = {"vector": (4,), "sequence": (3, 4), "map": (2, 5, 5), "maps": (3, 2, 5, 5)}
SHAPED = {name: StreamType.of("custom", shape) for name, shape in SHAPES.items()}
LBP_AND_NET = (("lbp",), ("resnet50",), ("lbp", "resnet50"))


def sweep(base=None, baseline=(), folds=None, seeds=(0,), **factors) -> SweepSpec:
    return SweepSpec(
        name="mine", base=base or BaseRun(), factors=Factors(**factors), baseline=baseline, folds=folds, seeds=seeds
    )


def names(spec, types=TYPES) -> list[str]:
    return [configuration.name for configuration in expand(spec, types)]


# --- subsets of streams ----------------------------------------------------------------------------------------------


def test_all_is_every_non_empty_subset_small_ones_first_in_the_caches_order():
    subsets = stream_subsets(Factors(streams="all"), TYPES)
    assert len(subsets) == len(set(subsets)) == 63
    assert subsets[:6] == [(name,) for name in TYPES]
    assert subsets[6] == ("lbp", "landmarks")
    assert subsets[-1] == tuple(TYPES)
    order = {name: place for place, name in enumerate(TYPES)}
    assert all(list(subset) == sorted(subset, key=order.__getitem__) for subset in subsets)
    assert [len(subset) for subset in subsets] == sorted(len(subset) for subset in subsets)


@pytest.mark.parametrize("count", range(1, 9))
def test_all_of_n_streams_is_2_to_the_n_less_one(count):
    assert len(stream_subsets(Factors(streams="all"), {f"s{i}": "backbone" for i in range(count)})) == 2**count - 1


def test_leave_one_out_is_all_streams_and_then_all_but_each():
    subsets = stream_subsets(Factors(streams="leave_one_out"), TYPES)
    assert subsets[0] == tuple(TYPES)
    assert [set(TYPES) - set(subset) for subset in subsets[1:]] == [{name} for name in TYPES]
    assert stream_subsets(Factors(streams="leave_one_out"), {"lbp": "lbp"}) == [("lbp",)]


def test_a_subset_is_the_same_in_whatever_order_it_is_listed():
    one, other = sweep(streams=(("lbp", "resnet50"),)), sweep(streams=(("resnet50", "lbp"),))
    assert [c.run for c in expand(one, TYPES)] == [c.run for c in expand(other, TYPES)]
    assert expand(other, TYPES)[0].run.features.streams == ("lbp", "resnet50")
    backwards = dict(reversed(TYPES.items()))
    assert expand(one, backwards)[0].run.features.streams == ("resnet50", "lbp")


def test_listed_subsets_keep_their_order():
    spec = sweep(streams=(("resnet50",), ("resnet50", "lbp"), ("lbp",)))
    assert names(spec) == ["resnet50", "lbp+resnet50", "lbp"]


def test_streams_that_are_not_in_the_cache_are_all_named():
    spec = sweep(streams=(("lbp", "resnet5"), ("places",)), baseline=("resnet",))
    with pytest.raises(SpecError) as caught:
        expand(spec, {"lbp": StreamType("lbp"), "resnet50": StreamType("backbone")})
    assert str(caught.value) == (
        "sweep 'mine', 3 problems: "
        "factors.streams[0]: 'resnet5' is not in the cache, did you mean 'resnet50'? (there are: lbp, resnet50) | "
        "factors.streams[1]: 'places' is not in the cache (there are: lbp, resnet50) | "
        "baseline: 'resnet' is not in the cache, did you mean 'resnet50'? (there are: lbp, resnet50)"
    )


def test_a_baseline_that_would_never_be_trained_is_refused():
    with pytest.raises(
        SpecError, match=r"baseline: lbp\+objects is not one of factors.streams: the sweep would never "
    ):
        expand(sweep(streams=LBP_AND_NET, baseline=("lbp", "objects")), TYPES)
    with pytest.raises(SpecError, match=r"baseline: lbp is not one of factors\.streams"):
        expand(sweep(streams="leave_one_out", baseline=("lbp",)), TYPES)


def test_the_baseline_is_the_first_subset_unless_it_is_named():
    assert baseline_streams(sweep(streams=LBP_AND_NET), TYPES) == ("lbp",)
    assert baseline_streams(sweep(streams=LBP_AND_NET, baseline=("resnet50", "lbp")), TYPES) == ("lbp", "resnet50")
    assert expand(sweep(streams=LBP_AND_NET, baseline=("resnet50", "lbp")), TYPES)


# --- the grid --------------------------------------------------------------------------------------------------------


def test_the_last_factor_changes_fastest():
    assert names(sweep(streams=LBP_AND_NET[:2], depth=(2, 1), learning_rate=(1e-3, 1e-4))) == [
        f"{streams}, depth={depth}, learning_rate={rate}"
        for streams in ("lbp", "resnet50")
        for depth in (2, 1)
        for rate in ("0.001", "0.0001")
    ]


def test_every_combination_is_there_once():
    factors = {
        "embed_dim": (4, 8),
        "depth": (1, 2, 3),
        "width": (4, 8),
        "dropout": (0.0, 0.5),
        "batch_size": (32, 64),
        "optimizer": ("adam", "adamw"),
        "gradient_balancing": ("off", "on"),
        "weight_decay": (0.0, 0.1),
        "label_smoothing": (0.0, 0.1),
        "learning_rate": (1e-4, 1e-3),
        "lbp_bins": (128, 256, 512),
        "action_units": (15, 30),
    }
    found = expand(sweep(streams=(tuple(TYPES),), **factors), TYPES)
    assert len(found) == math.prod(len(values) for values in factors.values())
    asked = {tuple(sorted(zip(factors, values, strict=True))) for values in itertools.product(*factors.values())}
    trained = set()
    for configuration in found:
        run = configuration.run
        parts = {**run.features.model_dump(), **run.head.model_dump(), **run.train.model_dump()}
        values = {name: parts[name] for name in factors}
        assert configuration.settings == values
        trained.add(tuple(sorted(values.items())))
    assert trained == asked


def test_what_no_factor_says_is_the_bases():
    base = BaseRun(
        lbp_bins=512,
        action_units=15,
        neutral_label="calm",
        head=GatedHeadSpec(embed_dim=16, gate_dim=3),
        train=TrainSpec(epochs=7, seed=9, gradient_balancing="on", weight_decay=0.5),
        split=StratifiedSplit(seed=4),
    )
    (configuration,) = expand(sweep(base, streams=(("lbp", "action_units"),), learning_rate=(0.1,)), TYPES)
    run = configuration.run
    assert run == RunSpec(
        name="lbp+action_units",
        features={"streams": ("lbp", "action_units"), "lbp_bins": 512, "action_units": 15, "neutral_label": "calm"},
        head=base.head,
        train=base.train.model_copy(update={"learning_rate": 0.1}),
        split=base.split,
    )
    assert configuration.settings == {}


def test_a_range_has_no_grid():
    spec = SweepSpec(name="x", factors=Factors(dropout=Range(low=0, high=0.5)), search={"kind": "random", "trials": 3})
    with pytest.raises(TypeError, match=r"factors\.dropout: a range has no list of values"):
        expand(spec, TYPES)


# --- factors without a use -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streams", "factors", "count"),
    [
        (("lbp",), {"lbp_bins": (128, 256, 512)}, 3),
        (("resnet50",), {"lbp_bins": (128, 256, 512)}, 1),
        (("action_units", "lbp"), {"action_units": (15, 20), "lbp_bins": (128, 512)}, 4),
        (("landmarks",), {"action_units": (15, 20, 25), "lbp_bins": (128, 512)}, 1),
        (("lbp",), {"head": (LinearHeadSpec(), ConcatHeadSpec()), "depth": (1, 2), "width": (4, 8)}, 5),
        (("lbp",), {"head": (LinearHeadSpec(), LateHeadSpec()), "embed_dim": (4, 8), "dropout": (0.0, 0.5)}, 5),
        (("lbp",), {"depth": (0, 1), "width": (4, 8), "dropout": (0.0, 0.5)}, 5),
        (("lbp",), {"head": (AttentionHeadSpec(), GatedHeadSpec()), "depth": (1, 2), "width": (4, 8)}, 8),
        (("lbp",), {"gradient_balancing": ("off", "monitor", "on")}, 1),
        (("lbp", "objects"), {"gradient_balancing": ("off", "monitor", "on")}, 3),
        (("lbp",), {"head": (LinearHeadSpec(),), "learning_rate": (1e-3, 1e-4), "batch_size": (8, 16)}, 4),
        # Heads that were listed with different depths are one head when depth is a factor.
        (("lbp",), {"head": (ConcatHeadSpec(depth=1), ConcatHeadSpec(depth=3)), "depth": (1, 2)}, 2),
    ],
)
def test_a_factor_without_a_use_makes_no_second_configuration(streams, factors, count):
    found = expand(sweep(streams=(streams,), **factors), TYPES)
    assert len(found) == count
    assert len({c.key for c in found}) == len({c.name for c in found}) == count


@pytest.mark.parametrize(
    ("streams", "factors", "count"),
    [
        (("vector",), {"temporal": ("mean", "lstm"), "spatial": ("mean", "cnn"), "stem_width": (8, 16)}, 1),
        (("sequence",), {"temporal": ("mean", "max", "mean_std"), "spatial": ("mean", "cnn")}, 3),
        (("sequence",), {"temporal": ("mean", "max", "lstm"), "stem_width": (8, 16)}, 4),
        (("map",), {"temporal": ("mean", "lstm"), "spatial": ("mean", "attention", "cnn"), "stem_width": (8, 16)}, 5),
        (("vector", "sequence", "map"), {"temporal": ("mean", "gru"), "spatial": ("mean", "cnn")}, 4),
        # The hidden size is used unless both stems are means.
        (("maps",), {"temporal": ("mean", "gru"), "spatial": ("mean", "cnn"), "stem_width": (8, 16)}, 7),
        (("sequence",), {"head": (LinearHeadSpec(), LogisticHeadSpec()), "temporal": ("mean", "max")}, 3),
        (("vector",), {"head": (ConcatHeadSpec(), ConcatHeadSpec(temporal="lstm", stem_width=9))}, 1),
        (("map",), {"head": [ConcatHeadSpec(spatial="patches", patch_kernels=(k,)) for k in (1, 3)]}, 2),
        (("map",), {"head": [ConcatHeadSpec(spatial="cnn", patch_kernels=(k,)) for k in (1, 3)]}, 1),
    ],
)
def test_stems_vary_only_with_a_sequence_or_a_map(streams, factors, count):
    found = expand(sweep(streams=(streams,), **factors), SHAPED)
    assert len(found) == count
    assert len({c.key for c in found}) == len({c.name for c in found}) == count


def test_a_stem_that_is_not_used_is_neither_a_setting_nor_part_of_the_key():
    spec = sweep(streams=(("vector",), ("vector", "sequence")), temporal=("mean", "lstm"), stem_width=(8, 16))
    assert names(spec, SHAPED) == [
        "vector",
        "vector+sequence, temporal=mean",
        "vector+sequence, temporal=lstm, stem_width=8",
        "vector+sequence, temporal=lstm, stem_width=16",
    ]
    plain = expand(sweep(streams=(("vector",),)), SHAPED)[0]
    lstm = sweep(BaseRun(head=ConcatHeadSpec(temporal="lstm")), streams=(("vector",),))
    assert expand(spec, SHAPED)[0].key == expand(lstm, SHAPED)[0].key == plain.key
    assert "temporal" not in plain.run.head.model_dump()


def test_the_type_of_a_stream_is_read_from_its_shape_in_the_cache(tmp_path, write_cache):
    path = write_cache(tmp_path / "features.zarr", **planted())
    add_sequence_and_map(path)
    types = stream_types(open_cache(path))
    assert types == {
        "signal": StreamType("backbone"),
        "noise": StreamType("backbone"),
        "sequence": StreamType("custom", is_sequence=True),
        "map": StreamType("custom", has_maps=True),
    }


def test_a_stream_has_the_type_that_its_stem_is_made_for():
    made = {
        name: make_stem(Members([HeadMember((name,))]), name, shape, StemChoice()) for name, shape in SHAPES.items()
    }
    assert made["vector"] is None
    for name in ("sequence", "map", "maps"):
        assert (SHAPED[name].is_sequence, SHAPED[name].has_maps) == (made[name].is_sequence, made[name].has_maps)
    assert SHAPED["vector"] == StreamType("custom")
    assert SHAPED["sequence"] == StreamType("custom", is_sequence=True)
    assert SHAPED["map"] == StreamType("custom", has_maps=True)
    assert SHAPED["maps"] == StreamType("custom", is_sequence=True, has_maps=True)


def test_the_kind_of_a_stream_counts_not_its_name():
    spec = sweep(streams="all", lbp_bins=(128, 256))
    assert names(spec, {"texture": StreamType("lbp"), "lbp": StreamType("backbone")}) == [
        "texture, lbp_bins=128",
        "texture, lbp_bins=256",
        "lbp",
        "texture+lbp, lbp_bins=128",
        "texture+lbp, lbp_bins=256",
    ]


def test_a_run_is_the_same_in_a_sweep_whose_base_differs_in_what_it_has_no_use_for():
    one = BaseRun(lbp_bins=128, action_units=15, head=ConcatHeadSpec(depth=0, width=4))
    other = BaseRun(lbp_bins=512, action_units=30, head=ConcatHeadSpec(depth=0, width=9))
    keys = [expand(sweep(base, streams=(("resnet50",),)), TYPES)[0].key for base in (one, other)]
    assert keys[0] == keys[1]
    keys = [expand(sweep(base, streams=(("lbp",),)), TYPES)[0].key for base in (one, other)]
    assert keys[0] != keys[1]


def test_a_setting_without_a_use_is_not_among_the_settings():
    found = expand(sweep(streams=LBP_AND_NET[:2], lbp_bins=(128, 256), head=("linear", "concat"), depth=(1, 2)), TYPES)
    linear = [c.settings for c in found if c.run.head.kind == "linear"]
    assert linear == [
        {"streams": ["lbp"], "lbp_bins": 128, "head": "linear"},
        {"streams": ["lbp"], "lbp_bins": 256, "head": "linear"},
        {"streams": ["resnet50"], "head": "linear"},
    ]
    assert {"streams": ["resnet50"], "head": "concat", "depth": 2} in [c.settings for c in found]


# --- names and keys --------------------------------------------------------------------------------------------------


def test_rates_that_differ_in_the_last_bit_are_two_configurations_with_two_names():
    rates = (0.1, math.nextafter(0.1, 1), math.nextafter(0.1, 0), 1e-5, math.nextafter(1e-5, 1))
    found = expand(sweep(streams=(("lbp",),), learning_rate=rates), TYPES)
    assert [c.run.train.learning_rate for c in found] == list(rates)
    assert [float(c.name.removeprefix("learning_rate=")) for c in found] == list(rates)
    assert len({c.name for c in found}) == len({c.key for c in found}) == 5


def test_heads_of_one_kind_are_named_by_what_they_differ_in():
    heads = (ConcatHeadSpec(depth=1), ConcatHeadSpec(depth=2, dropout=0.1), GatedHeadSpec(gate_dim=5))
    assert names(sweep(streams=(("lbp",),), head=heads)) == [
        "head=concat(depth=1, dropout=0.0)",
        "head=concat(depth=2, dropout=0.1)",
        "head=gated",
    ]
    assert names(sweep(streams=(("lbp",),), head=heads[:2], depth=(3,))) == [
        "head=concat(dropout=0.0)",
        "head=concat(dropout=0.1)",
    ]


@pytest.mark.parametrize("first", range(0, 12, 3))
def test_names_differ_exactly_where_runs_do(first):
    """Many small grids, each of a few factors, with heads that share and lack settings."""
    values = {
        "streams": "all",
        "lbp_bins": (128, 512),
        "action_units": (15, 30),
        "head": ("linear", ConcatHeadSpec(depth=0), ConcatHeadSpec(depth=2, width=7), AttentionHeadSpec(embed_dim=8)),
        "embed_dim": (8, 16),
        "depth": (1, 2),
        "width": (4, 8),
        "dropout": (0.0, math.nextafter(0.0, 1)),
        "batch_size": (8, 16),
        "gradient_balancing": ("off", "on"),
        "weight_decay": (0.0, 1e-300),
        "learning_rate": (1e-3, math.nextafter(1e-3, 1)),
    }
    types = {name: TYPES[name] for name in ("lbp", "action_units", "resnet50")}
    for others in itertools.combinations(list(values)[first : first + 6], 3):
        chosen = {name: values[name] for name in ("head", *others)}
        found = expand(sweep(**chosen), types)
        assert len({c.name for c in found}) == len({c.key for c in found}) == len(found)
        assert all(c.run.name == c.name for c in found)
        settings = [str(c.settings) for c in found]
        assert len(set(settings)) == len(found)


def test_a_key_is_of_the_run_without_its_name():
    spec = sweep(streams=LBP_AND_NET)
    alone = sweep(streams=LBP_AND_NET[:1], learning_rate=(1e-4, 1e-3))
    one, same = expand(spec, TYPES)[0], expand(alone, TYPES)[0]
    assert one.name != same.name
    assert one.key == same.key
    plain = {name: value for name, value in one.run.model_dump(mode="json").items() if name != "name"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert one.key == hashlib.sha256(text.encode()).hexdigest()


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_configuration_is_trained_once_a_seed_and_fold():
    spec = sweep(streams=LBP_AND_NET, folds=CrossValidation(count=3, seed=8), seeds=(5, 6))
    configuration = expand(spec, TYPES)[2]
    runs = runs_of(configuration, spec)
    assert [(run.train.seed, run.fold) for run in runs] == [
        (seed, FoldSpec(count=3, index=index, seed=8)) for seed in (5, 6) for index in range(3)
    ]
    seed = configuration.run.train.seed
    back = [run.model_copy(update={"fold": None, "train": run.train.model_copy(update={"seed": seed})}) for run in runs]
    assert all(run == configuration.run for run in back)


def test_without_folds_a_seed_is_one_run():
    spec = sweep(streams=LBP_AND_NET, seeds=(5, 6))
    assert [(run.train.seed, run.fold) for run in runs_of(expand(spec, TYPES)[0], spec)] == [(5, None), (6, None)]


def test_a_choice_of_values_gives_the_configuration_of_the_grid():
    spec = sweep(streams=LBP_AND_NET, depth=(1, 2), lbp_bins=(128, 256))
    space = Space.of(spec, TYPES)
    assert space.varying == {"streams", "depth", "lbp_bins"}
    one = space.configuration({"streams": ("resnet50",), "depth": 2, "lbp_bins": 128})
    assert one in expand(spec, TYPES)
    assert one == space.configuration({"streams": ("resnet50",), "depth": 2})


def test_options_of_training_are_factors_and_solved_heads_use_class_weights_alone():
    factors = {
        "class_weights": ("none", "balanced"),
        "focal_gamma": (0.0, 2.0),
        "schedule": ("constant", "cosine"),
        "ema": (0.0, 0.99),
        "learning_rate": (1e-4, 1e-3),
    }
    heads = {"concat": 32, "logistic": 2, "kernel_ridge": 1}
    for kind, count in heads.items():
        spec = parse_spec(Factors, {"head": kind}, "factors").head
        assert len(expand(sweep(streams=(("lbp",),), head=spec, **factors), TYPES)) == count
    (found,) = [
        each.run for each in expand(sweep(streams=(("lbp",),), ema=(0.99,), clip_norm=(1.0,), warmup=(0.1,)), TYPES)
    ]
    assert found.train == TrainSpec(ema=0.99, clip_norm=1.0, warmup=0.1)
