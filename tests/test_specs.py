"""Specs: immutable, strict, one digest for one meaning, every fault reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from emofuse.errors import EmofuseError, SpecError
from emofuse.pipeline import expand_runs
from emofuse.specs import (
    BackboneSpec,
    CacheSpec,
    CustomStreamSpec,
    KernelRidgeHeadSpec,
    LbpSpec,
    ObjectsSpec,
    PipelineSpec,
    RandomWeights,
    StratifiedSplit,
    SweepSpec,
    TrainSpec,
    bundled_specs,
    canonical_json,
    digest,
    parse_spec,
    read_cache_spec,
    read_pipeline_spec,
)
from emofuse.specs.streams import STREAMS


def faults(data, model=CacheSpec):
    with pytest.raises(SpecError) as caught:
        parse_spec(model, data, "cache_specs/mine.yaml")
    return caught.value


def test_a_spec_reports_all_its_faults_at_once():
    error = faults({"streams": [{"kind": "lbp"}, {"kind": "places"}], "block_rows": 0})
    assert str(error) == (
        "cache_specs/mine.yaml, 2 problems: block_rows: must be >= 1, got 0 | "
        "streams[1].kind: 'places' is unknown, did you mean 'places365'?"
    )
    assert isinstance(error, EmofuseError)
    assert isinstance(error, ValueError)


def test_an_unknown_kind_without_a_near_name_lists_the_kinds():
    (problem,) = faults({"streams": [{"kind": "zzz"}]}).problems
    assert {"action_units", "backbone", "lbp"} <= set(STREAMS.names())
    assert problem == f"streams[0].kind: 'zzz' is unknown, expected one of {', '.join(STREAMS.names())}"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"streams": [{"kind": "lbp", "radius": 2}]}, "streams[0].radius: unknown key"),
        ({"streams": [{"kind": "backbone"}]}, "streams[0].model: is missing"),
        ({"streams": [{"name": "x"}]}, "streams[0].kind: is missing, expected one of action_units, backbone"),
        ({"streams": [{"kind": "lbp"}, {"kind": "lbp"}]}, "stream names must differ, these are used twice: lbp"),
        (
            {"streams": [{"kind": "lbp", "name": "../x"}]},
            "streams[0].name: expected a name of letters, digits, `_`, `.` and `-`, a letter first, got '../x'",
        ),
        ({"streams": []}, "streams: needs at least 1, got []"),
        ({"streams": [{"kind": "lpb"}]}, "streams[0].kind: 'lpb' is unknown, did you mean 'lbp'?"),
        ({"streams": ["lbp"]}, "streams[0]: expected a mapping, write {kind: lbp}"),
        (
            {
                "streams": [
                    {"kind": "backbone", "model": "m", "weights": {"kind": "hub", "repo": "own", "revision": "1"}}
                ]
            },
            "streams[0].weights.repo: expected OWNER/NAME, got 'own'",
        ),
        ({"streams": ["places"]}, "streams[0]: expected a mapping with a kind (action_units, backbone, "),
        (
            {"streams": [{"kind": "backbone", "model": "resnet18", "weights": "resnet18-v1"}]},
            "streams[0].weights: expected a mapping with a kind (file, hub, random, registry), got 'resnet18-v1'",
        ),
        ({}, "streams: is missing"),
    ],
)
def test_a_faulty_cache_spec_says_where_and_what(data, problem):
    assert faults(data).problems[0].startswith(problem)


def test_a_stream_is_named_by_its_kind_and_a_backbone_by_its_model():
    assert LbpSpec().name == "lbp"
    assert ObjectsSpec().name == "objects"
    assert BackboneSpec(model="resnet50").name == "resnet50"
    assert BackboneSpec(model="resnet50", name="other").name == "other"


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TrainSpec().epochs = 3


def test_the_digest_is_the_sha256_of_sorted_json():
    assert canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    # Golden value: a change here makes every cache and every run of every user stale.
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_split_fractions_must_sum_to_one():
    with pytest.raises(SpecError, match=r"train \+ val \+ test must be 1, got 1\.2"):
        parse_spec(StratifiedSplit, {"train": 0.7, "val": 0.2, "test": 0.3}, "x")


class EdgeSpec(CustomStreamSpec):
    kind: Literal["edges"] = "edges"
    threshold: float = 0.1


def test_a_stream_of_ones_own_stands_beside_the_builtin_ones():
    spec = CacheSpec(streams=(EdgeSpec(threshold=0.2), LbpSpec()))
    assert spec.streams[0].name == "edges"
    assert spec.model_dump()["streams"][0]["threshold"] == 0.2


def test_yaml_cannot_name_code():
    assert "edges" in faults({"streams": [{"kind": "edges"}]}).problems[0]


@pytest.mark.parametrize("name", bundled_specs("cache_specs"))
def test_every_bundled_cache_spec_is_valid(name):
    assert read_cache_spec(name).name == name


@pytest.mark.parametrize("name", bundled_specs("pipelines"))
def test_every_bundled_pipeline_is_valid(name):
    assert read_pipeline_spec(name).name == name


def test_the_paper_pipeline_has_the_five_configurations_and_the_papers_defaults():
    spec = read_pipeline_spec("emoset118k")
    assert [run.features.streams for run in spec.runs] == [
        ("resnet50",),
        ("lbp", "resnet50"),
        ("lbp", "landmarks", "places365", "resnet50"),
        ("lbp", "landmarks", "objects", "resnet50"),
        ("lbp", "action_units", "places365", "resnet50"),
    ]
    assert [run.train.batch_size for run in spec.runs] == [32, 32, 64, 64, 64]
    for run in spec.runs:
        assert (run.train.epochs, run.train.learning_rate, run.train.optimizer) == (100, 1e-4, "adam")
        assert (run.head.embed_dim, run.head.depth, run.head.width) == (512, 2, 512)
        assert run.features.factors == {"lbp_bins": 256, "action_units": 25}


def test_the_demo_has_the_runs_of_the_paper_pipeline():
    demo, paper = (read_pipeline_spec(name).runs for name in ("demo", "emoset118k"))
    assert [(run.name, run.features, run.train.batch_size) for run in demo] == [
        (run.name, run.features, run.train.batch_size) for run in paper
    ]
    assert {run.train.epochs for run in demo} == {12}


def test_random_weights_are_only_in_the_demos():
    for name in bundled_specs("cache_specs"):
        kinds = {getattr(getattr(stream, "weights", None), "kind", None) for stream in read_cache_spec(name).streams}
        assert (RandomWeights().kind in kinds) == (name in {"demo", "clips_demo"})


def test_defaults_of_a_pipeline_are_merged_under_each_run(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "dataset: {kind: folder}\n"
        "cache: {streams: [{kind: lbp}]}\n"
        "defaults: {train: {epochs: 7, batch_size: 32}, features: {streams: [lbp]}}\n"
        "runs: [{name: a}, {name: b, train: {epochs: 9}}]\n"
    )
    first, second = read_pipeline_spec(path).runs
    assert (first.train.epochs, first.train.batch_size) == (7, 32)
    assert (second.train.epochs, second.train.batch_size) == (9, 32)


def test_a_head_of_another_kind_takes_no_defaults(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "dataset: {kind: demo}\n"
        "cache: {streams: [{kind: lbp}]}\n"
        "defaults: {head: {kind: concat, embed_dim: 128, depth: 1}, features: {streams: [lbp]}}\n"
        "runs:\n"
        "  - {name: a, head: {depth: 2}}\n"
        "  - {name: b, head: {kind: kernel_ridge}}\n"
        "  - {name: c, head: {kind: concat, width: 64}}\n"
    )
    concat, ridge, wide = (run.head for run in read_pipeline_spec(tmp_path / "mine.yaml").runs)
    assert (concat.kind, concat.embed_dim, concat.depth) == ("concat", 128, 2)
    assert ridge == KernelRidgeHeadSpec()
    assert (wide.embed_dim, wide.depth, wide.width) == (128, 1, 64)


def test_a_pipeline_takes_the_runs_of_another_and_its_own_defaults(tmp_path):
    (tmp_path / "first.yaml").write_text("runs: [{name: a}, {name: b, train: {epochs: 9}}]\n")
    rest = (
        "dataset: {kind: folder}\n"
        "cache: {streams: [{kind: lbp}]}\n"
        "defaults: {train: {epochs: 7}, features: {streams: [lbp]}}\n"
    )
    (tmp_path / "second.yaml").write_text(f"{rest}runs: first.yaml\n")
    runs = read_pipeline_spec(tmp_path / "second.yaml").runs
    assert [(run.name, run.train.epochs) for run in runs] == [("a", 7), ("b", 9)]
    (tmp_path / "second.yaml").write_text(f"{rest}runs: emoset\n")
    with pytest.raises(SpecError, match=r"second.yaml, 1 problem: runs: 'emoset': .*did you mean 'emoset118k'"):
        read_pipeline_spec(tmp_path / "second.yaml")


def test_a_pipeline_whose_run_names_a_stream_that_is_not_cached_is_refused():
    data = {
        "name": "p",
        "dataset": {"kind": "folder"},
        "cache": {"streams": [{"kind": "landmarks"}]},
        "runs": [{"name": "a", "features": {"streams": ["landmark"]}}],
        "baseline": "b",
    }
    error = faults(data, PipelineSpec)
    assert "runs[0].features.streams: 'landmark' is not in the cache, did you mean 'landmarks'?" in str(error)
    assert "baseline: 'b' is not the name of a run" in str(error)


def test_one_run_under_two_names_is_refused():
    data = {
        "name": "p",
        "dataset": {"kind": "folder"},
        "cache": {"streams": [{"kind": "lbp"}]},
        "runs": [{"name": name, "features": {"streams": ["lbp"]}} for name in ("a", "b")],
    }
    assert "runs: 'b' is the same run as 'a' under another name" in str(faults(data, PipelineSpec))


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (
            PipelineSpec,
            {
                "name": "p",
                "dataset": {"kind": "folder"},
                "cache": {"streams": [{"kind": "lbp"}]},
                "runs": [{"name": "a", "features": {"streams": ["lbp"]}}],
            },
        ),
        (SweepSpec, {"name": "s", "factors": {"streams": "all"}}),
    ],
)
def test_a_report_has_images_unless_its_section_says_otherwise(model, data):
    assert parse_spec(model, data, "p.yaml").report.images is True
    spec = parse_spec(model, {**data, "report": {"images": False}}, "p.yaml")
    assert spec.report.images is False
    if model is PipelineSpec:  # no part of the digests of runs and of the cache
        without = parse_spec(model, data, "p.yaml")
        assert (digest(spec.runs[0]), digest(spec.cache)) == (digest(without.runs[0]), digest(without.cache))
    assert "report.image" in str(faults({**data, "report": {"image": False}}, model))


def test_an_unknown_pipeline_lists_what_there_is():
    with pytest.raises(SpecError, match=r"demoo, 1 problem: .*did you mean 'demo'\?.*emoset118k"):
        read_pipeline_spec("demoo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "must be a mapping of keys to values, got a list"),
        ("", "the file is empty"),
        ("a: b\n\tc: d", r"not valid YAML: a tab \(line 2, column 1\): indent with spaces"),
        (
            "a: {b: c\nd: e",
            r"expected ',' or '}', but got ':' \(line 2, column 2, while parsing a flow mapping from line 1\)",
        ),
    ],
)
def test_a_file_that_is_no_spec_says_so(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        read_cache_spec(path)


def test_a_list_of_faulty_items_is_not_said_to_be_too_short():
    data = {
        "name": "p",
        "dataset": {"kind": "folder"},
        "cache": {"streams": []},
        "runs": [{"name": "a", "features": {"streams": []}}],
    }
    with pytest.raises(SpecError) as error:
        parse_spec(PipelineSpec, data, "p.yaml")
    assert error.value.problems == (
        "cache.streams: needs at least 1, got []",
        "runs[0].features.streams: needs at least 1, got []",
    )


def test_a_folder_in_the_place_of_a_pipeline_is_said_to_be_the_data(tmp_path):
    with pytest.raises(
        SpecError, match=rf"a folder, where a pipeline is expected .*: emofuse run PIPELINE --data {tmp_path}$"
    ):
        read_pipeline_spec(tmp_path)


@pytest.mark.parametrize(("key", "kind"), [("runs", "pipeline"), ("cache", "cache spec")])
def test_a_file_that_another_one_names_and_that_is_missing_is_told_with_its_key(tmp_path, key, kind):
    path = tmp_path / "p.yaml"
    path.write_text(f"dataset: {{kind: folder}}\n{key}: absent\n")
    with pytest.raises(
        SpecError, match=rf"^{path}, 1 problem: {key}: 'absent': no such file, and no {kind} of this name"
    ):
        read_pipeline_spec(path)


def test_a_file_with_code_in_it_is_refused_unrun(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']")
    with pytest.raises(SpecError, match="not valid YAML: could not determine a constructor for the tag"):
        read_cache_spec(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_text_says_so(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SpecError, match="not a text file in UTF-8"):
        read_cache_spec(path)


@pytest.mark.parametrize(
    ("rows", "block_rows"),
    [(1, 256), (118_102, 256), (4096 * 256, 256), (4096 * 256 + 1, 512), (3_300_000, 1024), (10**8, 24576)],
)
def test_blocks_grow_with_the_dataset_so_that_folders_do_not(rows, block_rows):
    spec = parse_spec(CacheSpec, {"streams": [{"kind": "lbp"}]}, "mine.yaml")
    assert spec.rows_of_a_block(rows) == block_rows
    assert -(-rows // block_rows) <= 4096
    fixed = parse_spec(CacheSpec, {"streams": [{"kind": "lbp"}], "block_rows": 64}, "mine.yaml")
    assert fixed.rows_of_a_block(rows) == 64


@pytest.mark.parametrize(("frames", "block_rows"), [(1, 256), (4, 64), (16, 16), (64, 16)])
def test_blocks_of_clips_have_fewer_rows_since_each_is_as_much_work_as_its_frames(frames, block_rows):
    spec = CacheSpec(streams=(LbpSpec(),), clip={"frames": frames})
    assert spec.rows_of_a_block(7442) == block_rows
    assert spec.rows_of_a_block(10**6) <= 4096 * block_rows


def test_paths_in_a_file_are_relative_to_that_file(tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    file = tmp_path / "specs/mine.yaml"
    stream = "{kind: places365, weights: {kind: file, path: nets/own.pth}}"
    run = "{name: P, features: {streams: [places365]}}"
    file.write_text(f"dataset: {{kind: folder, root: ../data}}\ncache: {{streams: [{stream}]}}\nruns: [{run}]\n")
    monkeypatch.chdir(tmp_path)
    spec = read_pipeline_spec("specs/mine.yaml")
    assert spec.dataset.root == tmp_path / "specs/../data"
    assert spec.cache.streams[0].weights.path == tmp_path / "specs/nets/own.pth"
    file.write_text(file.read_text().replace("../data", "/data"))
    assert read_pipeline_spec("specs/mine.yaml").dataset.root == Path("/data")


def test_the_test_of_a_pipeline_decides_the_split_of_every_run():
    run = {"name": "a", "features": {"streams": ["lbp"]}, "split": {"kind": "holdout"}}
    pipeline = {
        "name": "p",
        "dataset": {"kind": "demo"},
        "cache": {"streams": [{"kind": "lbp"}]},
        "runs": [run],
        "test": {"folds": 3},
        "repeat": {"split_seeds": [0, 1]},
    }
    with pytest.raises(SpecError) as caught:
        parse_spec(PipelineSpec, pipeline, "p.yaml")
    assert "runs[0].split: `test` decides the split of every run, so leave it out (holdout here)" in str(caught.value)
    assert "repeat.split_seeds: `test` draws the splits, by its own `seed` and `repeats`" in str(caught.value)
    plain = {**pipeline, "runs": [{**run, "split": {"kind": "official"}}], "repeat": {"seeds": [0, 1]}}
    expanded = list(expand_runs(parse_spec(PipelineSpec, plain, "p.yaml")))
    assert [(each.split.index, each.train.seed) for each in expanded] == [(k, s) for k in range(3) for s in (0, 1)]
