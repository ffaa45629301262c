"""YAML as users write it: a key given twice is an error, not a setting that is gone."""

from __future__ import annotations

import pytest

from emofuse.errors import SpecError
from emofuse.specs import read_cache_spec, read_pipeline_spec, read_sweep_spec
from emofuse.specs.yaml_text import YamlFaults, parse_yaml


def problems(text):
    with pytest.raises(YamlFaults) as caught:
        parse_yaml(text)
    return caught.value.problems


def test_keys_given_twice_are_all_named_with_both_lines():
    runs = "runs:\n- name: A\n  train: {epochs: 2}\n  train: {batch_size: 4}\n"
    text = f"{runs}name: x\ncache: {{streams: [], streams: []}}\nname: y\n"
    assert problems(text) == [
        "runs[0].train is given twice (lines 3 and 4): leave one of them out",
        "cache.streams is given twice (lines 6 and 6): leave one of them out",
        "name is given twice (lines 5 and 7): leave one of them out",
    ]


def test_a_key_is_the_same_with_and_without_quotes():
    assert problems("a: 1\n'a': 2\n") == ["a is given twice (lines 1 and 2): leave one of them out"]
    assert problems("yes: 1\ntrue: 2\n") == ["true is given twice (lines 1 and 2): leave one of them out"]
    assert parse_yaml("1: a\n'1': b\n") == {1: "a", "1": "b"}


def test_anchors_and_merged_mappings_are_read_as_before():
    text = "base: &base {epochs: 2, seed: 1}\nmine: {<<: *base, seed: 3}\nlist: [*base, *base]\n"
    assert parse_yaml(text)["mine"] == {"epochs": 2, "seed": 3}
    assert problems("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n") == [
        "b.<< is given twice (lines 2 and 2): leave one of them out"
    ]
    assert parse_yaml("a: &a [*a]\n")["a"][0] is not None


def test_an_empty_text_has_no_data():
    assert parse_yaml("") is None
    assert parse_yaml("# nothing\n") is None


def test_a_text_nested_without_end_is_a_fault():
    assert problems("[" * 5000) == ["not valid YAML: nested too deeply"]


@pytest.mark.parametrize("read", [read_cache_spec, read_pipeline_spec, read_sweep_spec])
def test_every_file_that_users_write_is_read_so(tmp_path, read):
    path = tmp_path / "mine.yaml"
    path.write_text("factors: {}\nblock_rows: 4\nblock_rows: 8\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read(path)
    assert str(caught.value) == (f"{path}, 1 problem: block_rows is given twice (lines 2 and 3): leave one of them out")
