"""Sweeps as they are written: what a file may leave out, every fault in plain words, the sweeps that travel along."""

from __future__ import annotations

import pytest
import yaml

from emofuse.errors import SpecError
from emofuse.specs import (
    ConcatHeadSpec,
    Factors,
    GatedHeadSpec,
    Range,
    SweepSpec,
    TrainSpec,
    bundled_specs,
    canonical_json,
    digest,
    parse_spec,
    read_cache_spec,
    read_pipeline_spec,
    read_sweep_spec,
)
from emofuse.sweep.configurations import StreamType, expand, runs_of


def sweep(text: str) -> SweepSpec:
    return parse_spec(SweepSpec, {"name": "mine", **yaml.safe_load(text)}, "mine.yaml")


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        sweep(text)
    return caught.value.problems


# --- short forms -----------------------------------------------------------------------------------------------------


def test_one_value_stands_for_a_list_of_one():
    factors = sweep("factors: {depth: 2, learning_rate: 1e-4, optimizer: adamw, head: gated, lbp_bins: 128}").factors
    assert factors == Factors(
        depth=(2,), learning_rate=(1e-4,), optimizer=("adamw",), head=(GatedHeadSpec(),), lbp_bins=(128,)
    )


def test_a_head_may_be_its_kind_alone():
    assert sweep("factors: {head: [concat, {kind: gated, depth: 1}]}").factors.head == (
        ConcatHeadSpec(),
        GatedHeadSpec(depth=1),
    )
    assert sweep("base: {head: gated}\nfactors: {}").base.head == GatedHeadSpec()


def test_yaml_s_bare_on_and_off_are_values_of_gradient_balancing():
    assert sweep("factors: {gradient_balancing: [off, on, monitor]}").factors.gradient_balancing == (
        "off",
        "on",
        "monitor",
    )
    assert sweep("factors: {gradient_balancing: on}").factors.gradient_balancing == ("on",)
    assert parse_spec(TrainSpec, yaml.safe_load("gradient_balancing: on"), "x").gradient_balancing == "on"


def test_numbers_without_a_point_are_numbers():
    assert sweep("factors: {learning_rate: [1e-4, 1e-3]}").factors.learning_rate == (1e-4, 1e-3)


def test_search_folds_seeds_and_names_have_short_forms():
    spec = sweep("factors: {}\nsearch: grid\nfolds: 3\nseeds: 4\nbaseline: lbp\nfinal: {best_of: head, seeds: 5}")
    assert (spec.search.kind, spec.folds.count, spec.seeds, spec.baseline) == ("grid", 3, (4,), ("lbp",))
    assert (spec.final.best_of, spec.final.seeds) == (("head",), (5,))


def test_a_range_is_low_high_and_log():
    spec = sweep("factors: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}\nsearch: {kind: random, trials: 3}")
    assert spec.factors.learning_rate == Range(low=1e-5, high=1e-3, log=True)
    assert spec.factors.ranges() == ["learning_rate"]


# --- faults ----------------------------------------------------------------------------------------------------------

SUBSETS = "factors.streams: expected all, leave_one_out or a list of subsets like [[lbp], [lbp, resnet50]], got "
RANGE = "expected a list of numbers or {low, high, log}, got "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # numbers
        ("learning_rate: fast", [f"factors.learning_rate: {RANGE}'fast'"]),
        ("dropout: null", [f"factors.dropout: {RANGE}None"]),
        ("learning_rate: [fast, 1e-3]", ["factors.learning_rate[0]: expected a number, got 'fast'"]),
        (
            "learning_rate: [.inf, .nan]",
            [
                f"factors.learning_rate[{i}]: Input should be a finite number, got {n}"
                for i, n in ((0, "inf"), (1, "nan"))
            ],
        ),
        ("learning_rate: {low: 1, high: 0.5}", ["factors.learning_rate: high must be above low, got 1.0 and 0.5"]),
        (
            "learning_rate: {low: 0, high: 1, log: true}",
            ["factors.learning_rate: a logarithmic range begins above 0, got 0.0"],
        ),
        (
            "learning_rate: {low: 1, hihg: 2}",
            ["factors.learning_rate.high: is missing", "factors.learning_rate.hihg: unknown key, did you mean 'high'?"],
        ),
        ("depth: {low: 1, high: 3}", ["factors.depth: expected a list, got {'low': 1, 'high': 3}"]),
        ("depth: null", ["factors.depth: expected a list, got None"]),
        (
            "depth: [x, 1.5]",
            [f"factors.depth[{i}]: expected a whole number, got {n}" for i, n in ((0, "'x'"), (1, "1.5"))],
        ),
        # choices
        ("lbp_bins: 100", ["factors.lbp_bins[0]: must be 128, 256 or 512, got 100"]),
        ("action_units: [15, 16]", ["factors.action_units[1]: must be 15, 20, 25 or 30, got 16"]),
        ("optimizer: lion", ["factors.optimizer[0]: must be adam, adamw, rmsprop or sgd, got 'lion'"]),
        ("head: [concat, gatd]", ["factors.head[1].kind: 'gatd' is unknown, did you mean 'gated'?"]),
        ("head: {kind: gated, depth: 99}", ["factors.head[0].depth: must be <= 8, got 99"]),
        ("head: [{kind: gated, detph: 1}]", ["factors.head[0].detph: unknown key, did you mean 'depth'?"]),
        ("hed: concat", ["factors.hed: unknown key, did you mean 'head'?"]),
        # streams
        ("streams: [lbp, resnet50]", [f"{SUBSETS}['lbp', 'resnet50']"]),
        ("streams: [[]]", [f"{SUBSETS}[[]]"]),
        ("streams: []", [f"{SUBSETS}[]"]),
        ("streams: [[1]]", [f"{SUBSETS}[[1]]"]),
        ("streams: leave_one_ou", [f"{SUBSETS}'leave_one_ou', did you mean 'leave_one_out'?"]),
        ("streams: [[lbp, lbp]]", ["factors.streams: [lbp, lbp] names a stream twice"]),
        # twice
        ("streams: [[a, b], [b, a]]", ["factors.streams: [b, a] is given twice"]),
        (
            "learning_rate: [1e-4, 0.0001, 1, 1.0]",
            [f"factors.learning_rate: {n} is given twice" for n in (0.0001, 1.0)],
        ),
        ("head: [concat, {kind: concat, depth: 2}]", ["factors.head: concat is given twice"]),
        # values that no run can have
        ("learning_rate: [1e-4, 0]", ["factors.learning_rate: must be > 0.0, got 0.0"]),
        ("weight_decay: -1", ["factors.weight_decay: must be >= 0.0, got -1.0"]),
        ("label_smoothing: 1", ["factors.label_smoothing: must be < 1.0, got 1.0"]),
        ("batch_size: [64, 1]", ["factors.batch_size: must be >= 2, got 1"]),
        ("depth: [2, 9]", ["factors.depth: must be <= 8, got 9 (head concat)"]),
        ("{head: [concat, attention], depth: [0, 1]}", ["factors.depth: must be >= 1, got 0 (head attention)"]),
        (
            "{head: attention, embed_dim: [64, 66]}",
            ["factors.embed_dim: embed_dim must be a multiple of attention_heads, got 66 and 4 (head attention)"],
        ),
        ("{head: linear, width: 8}", ["factors.width: there is no width in a head of kind linear"]),
        (
            "{depth: 9, learning_rate: 0, batch_size: 1, width: 0}",
            [
                "factors.depth: must be <= 8, got 9 (head concat)",
                "factors.width: must be >= 1, got 0 (head concat)",
                "factors.batch_size: must be >= 2, got 1",
                "factors.learning_rate: must be > 0.0, got 0.0",
            ],
        ),
    ],
)
def test_a_faulty_factor_is_named_with_what_was_found_and_expected(text, expected):
    text = text if text.startswith("{") else f"{{{text}}}"
    assert list(problems(f"factors: {text}")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{factors: {learning_rate: {low: 1e-4, high: 1}, dropout: {low: 0, high: 0.5}}}",
            [
                f"factors.{name}: a grid needs values, a range is for a random or tpe search"
                for name in ("dropout", "learning_rate")
            ],
        ),
        (
            "{factors: {dropout: {low: 0, high: 1}}, search: {kind: random, trials: 3}}",
            ["factors.dropout: must be < 1.0, got 1.0 (head concat)"],
        ),
        (
            "{factors: {dropout: {low: 0, high: 0.5}}, search: {kind: tpe, trials: 3}, final: {best_of: [dropout]}}",
            ["final.best_of: dropout is a range, there is no best of each of its values"],
        ),
        (
            "{final: {best_of: [widht]}}",
            ["final: best_of: not a factor: 'widht', did you mean 'width'? (there are: streams, lbp_bins, "],
        ),
        ("{search: randm}", ["search.kind: 'randm' is unknown, did you mean 'random'?"]),
        ("{search: random}", ["search.trials: is missing"]),
        (
            "{seeds: [1, 1], final: {seeds: [0, 0]}}",
            [f"{n}: a seed is given twice: " for n in ("seeds", "final.seeds")],
        ),
        ("{folds: 1}", ["folds.count: must be >= 2, got 1"]),
        (
            "{factors: {head: [logistic, concat]}, final: {ensemble: {seeds: [0, 1]}}}",
            ["final.ensemble.seeds: a logistic head has no seed, its heads would be equal. Give folds"],
        ),
        (
            "{final: {ensemble: {folds: 3}, refit: train_val}}",
            ["final.refit: the heads of an ensemble of folds have learned from all training and validation rows"],
        ),
        ("{select: f1}", ["select: must be macro_f1, accuracy, loss, ccc or map, got 'f1'"]),
        (
            "{compare: [[a, a], [a, b], [b, a]]}",
            [
                "compare[0]: 'a' cannot be compared with itself",
                "compare[2]: 'b' and 'a' are compared above already",
            ],
        ),
        ("{compare: [a, b]}", ["compare: expected a list of pairs of names like [[A, B], [A, C]], got ['a', 'b']"]),
        ("{compare: a=b}", ["compare: expected a list of pairs of names like [[A, B], [A, C]], got 'a=b'"]),
        ("{baseline: [a, a]}", ["baseline: [a, a] names a stream twice"]),
        (
            "{search: {kind: tpe, trials: 3}, halving: {}}",
            ["halving: a tpe search learns from whole trainings, use it with a grid or random search"],
        ),
        (
            "{base: {train: {epochs: 3}}, halving: {}}",
            ["halving.first_epochs: must be below base.train.epochs, or nothing is ever halved"],
        ),
        ("{base: {head: {kind: attention, embed_dim: 66}}}", ["base.head: embed_dim must be a multiple of "]),
        ("{base: {head: linear}, factors: {depth: 1}}", ["factors.depth: there is no depth in a head of kind linear"]),
    ],
)
def test_a_faulty_sweep_says_where_and_what(text, expected):
    found = problems(text)
    assert len(found) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(found, expected, strict=True)), found


# --- files -----------------------------------------------------------------------------------------------------------


def test_sweeps_and_pipelines_are_told_apart():
    assert set(bundled_specs("sweeps")) >= {"all_subsets", "paper_grid"}
    assert set(bundled_specs("pipelines")) >= {"demo", "emoset118k", "faces"}
    assert not set(bundled_specs("sweeps")) & set(bundled_specs("pipelines"))


def test_a_file_of_the_other_kind_says_how_it_is_started():
    with pytest.raises(
        SpecError, match=r"this is a sweep \(it has `factors`\), start it by: emofuse sweep paper_grid$"
    ):
        read_pipeline_spec("paper_grid")
    with pytest.raises(SpecError, match=r"this is a pipeline \(it has `runs`\), start it by: emofuse run demo$"):
        read_sweep_spec("demo")


def test_an_unknown_sweep_lists_the_sweeps_alone():
    with pytest.raises(
        SpecError, match=r"no sweep of this name, did you mean 'paper_grid'\? \(there are: all_sub"
    ) as caught:
        read_sweep_spec("paper_gird")
    assert "emoset118k" not in str(caught.value)


def test_a_sweep_without_factors_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("title: x\n")
    with pytest.raises(SpecError, match=r"factors: is missing; a sweep names what varies, for example `factors: \{str"):
        read_sweep_spec(path)


def test_the_pipeline_of_a_sweep_is_looked_for_when_it_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("{pipeline: demoo, factors: {depth: 9}}")
    with pytest.raises(SpecError) as caught:
        read_sweep_spec(path)
    assert caught.value.problems[0].startswith(
        "pipeline: 'demoo': no such file, and no pipeline of this name, did you mean 'demo'? (there are: "
    )
    assert caught.value.problems[1] == "factors.depth: must be <= 8, got 9 (head concat)"
    path.write_text("{pipeline: all_subsets, factors: {}}")
    with pytest.raises(
        SpecError, match="pipeline: all_subsets is a sweep itself, name the pipeline that makes the cache"
    ):
        read_sweep_spec(path)


def test_a_pipeline_beside_the_sweep_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "own.yaml").write_text(
        "{dataset: {kind: folder}, cache: {streams: [{kind: lbp}]}, runs: [{name: a, features: {streams: [lbp]}}]}"
    )
    (tmp_path / "there" / "mine.yaml").write_text("{pipeline: own.yaml, factors: {}}")
    monkeypatch.chdir(tmp_path)
    spec = read_sweep_spec("there/mine.yaml")
    assert spec.name == "mine"
    assert read_pipeline_spec(spec.pipeline).name == "own"


# --- bundled ---------------------------------------------------------------------------------------------------------


def types_of(spec: SweepSpec) -> dict[str, StreamType]:
    cache = read_pipeline_spec(spec.pipeline).cache
    return {stream.name: StreamType(stream.kind) for stream in cache.streams}


@pytest.mark.parametrize("name", bundled_specs("sweeps"))
def test_every_bundled_sweep_fits_the_cache_of_its_pipeline(name):
    from emofuse.sweep.strategies import make_strategy

    spec = read_sweep_spec(name)
    assert spec.name == name
    assert make_strategy(spec, types_of(spec)).total > 1


def test_the_papers_grid_is_540_configurations_and_2700_heads():
    spec = read_sweep_spec("paper_grid")
    configurations = expand(spec, types_of(spec))
    runs = [run for configuration in configurations for run in runs_of(configuration, spec)]
    assert (len(configurations), len(runs)) == (540, 2700)
    assert spec.pipeline == "emoset118k"
    assert {run.features.streams for run in runs} == {("lbp", "action_units", "places365", "resnet50")}
    assert {run.features.factors["lbp_bins"] for run in runs} == {128, 256, 512}
    assert {run.features.factors["action_units"] for run in runs} == {15, 20, 25, 30}
    assert {(run.head.depth, run.head.width) for run in runs} == {(d, w) for d in (1, 2, 3) for w in (256, 512, 1024)}
    rates = sorted({run.train.learning_rate for run in runs})
    assert (len(rates), rates[0], rates[-1]) == (5, 1e-5, 1e-3)
    assert {(run.train.epochs, run.train.batch_size, run.fold.count) for run in runs} == {(30, 1024, 5)}


def test_all_subsets_is_315_configurations_and_1575_heads():
    spec = read_sweep_spec("all_subsets")
    configurations = expand(spec, types_of(spec))
    runs = [run for configuration in configurations for run in runs_of(configuration, spec)]
    assert (len({run.features.streams for run in runs}), len(configurations), len(runs)) == (63, 315, 1575)
    assert (spec.pipeline, spec.final.best_of, spec.baseline, spec.final.seeds) == (
        "demo",
        ("streams",),
        ("resnet50",),
        (0, 1, 2),
    )
    assert {stream.name for stream in read_cache_spec("demo").streams} == set(types_of(spec))


def test_a_sweep_has_one_digest_through_json():
    spec = read_sweep_spec("paper_grid")
    plain = spec.model_dump(mode="json")
    assert digest(SweepSpec.model_validate(plain)) == digest(spec) == digest(plain)
    ranged = sweep("factors: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}\nsearch: {kind: tpe, trials: 3}")
    assert SweepSpec.model_validate(ranged.model_dump(mode="json")) == ranged
    assert '"learning_rate":{"high":0.001,"log":true,"low":1e-05}' in canonical_json(ranged.model_dump(mode="json"))
