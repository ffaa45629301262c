"""Every block of code of every page: commands are parsed and run, YAML is valid, Python is executed."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from page_reader import check_same
from pydantic import TypeAdapter
from workshop import DOCS, ROOT, Block, Workshop, commands_of, inside, pages, read_blocks

from docs_site.commands import find_command
from emofuse.specs import (
    DatasetSpec,
    FaceSpec,
    LabelMapSpec,
    TargetSpec,
    bundled_specs,
    parse_spec,
    read_cache_spec,
    read_pipeline_spec,
    read_sweep_spec,
)
from emofuse.specs.datasets import DATASETS

BLOCKS = [block for page in pages() for block in read_blocks(page)]
LANGUAGES = {"console", "yaml", "python", "text"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
ELSEWHERE = {"cp", "dask", "docker", "export", "kubectl", "sbatch", "ssh"}
"""Programs that are not ours: other tests hold the options that pages give to dask."""


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def test_every_block_has_a_language_that_is_tested():
    assert not [str(block) for block in BLOCKS if block.language not in LANGUAGES]
    assert len(BLOCKS) > 60


def parse_command(words: list[str]) -> None:
    """Parse a command of emofuse as the command line does, without calling it."""
    name, command, rest = find_command(words)
    with contextlib.suppress(typer.Exit, SystemExit), contextlib.redirect_stdout(io.StringIO()):
        command.make_context(name, rest)


def check_command(command: str, block: Block) -> None:
    words = shlex.split(command)
    if words[0] == "emofuse":
        parse_command(words[1:])
        if words[1] in {"run", "profile", "doctor"} and len(words) > 2 and not words[2].startswith("-"):
            known = {*bundled_specs("pipelines"), *(each.file_name for each in BLOCKS)}
            assert words[2] in known, f"{block}: no pipeline {words[2]}"
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", MAKEFILE, re.MULTILINE), f"{block}: no target {words[1]}"
    elif words[0] == "pip":
        for extras in re.findall(r"\[([\w,]+)\]", command):
            assert set(extras.split(",")) <= set(EXTRAS), f"{block}: {command}"
    elif Path(words[0]).name == "python":
        if words[1] == "-m":
            module = words[2].split(".")
            assert module[0] == "pytest" or ROOT.joinpath(*module).with_suffix(".py").is_file(), f"{block}: {command}"
        else:
            assert (ROOT / words[1]).is_file(), f"{block}: {command}"
    else:
        assert words[0] in ELSEWHERE, f"{block}: no test knows how to check {words[0]!r}"
        if "emofuse" in words:  # on another machine
            parse_command(words[words.index("emofuse") + 1 :])


@pytest.mark.parametrize("block", of("console"), ids=str)
def test_commands_are_understood_by_the_command_line(block):
    for command in commands_of(block):
        check_command(command, block)


def test_an_option_that_does_not_exist_is_noticed():
    block = of("console")[0]
    for wrong in ("emofuse run demo --colour red", "emofuse fuse demo", "make coffee", "pip install 'emofuse[tea]'"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each has an error of its own
            check_command(wrong, block)


def spoken_commands() -> list[tuple[str, str]]:
    """The commands between backticks in running text, such as `emofuse cache info`."""
    found = set()
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        found |= {(page.name, each.replace("\n", " ")) for each in re.findall(r"`emofuse ([^`]+)`", text)}
    return sorted(found)


@pytest.mark.parametrize(("page", "command"), spoken_commands())
def test_commands_in_sentences_exist(page, command):
    words = command.split()
    name, found, rest = find_command([words[0], words[1].split(",")[0] if len(words) > 1 else "", *words[2:]])
    options = {option for each in found.params for option in [*each.opts, *each.secondary_opts]}
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in options | {"--help"}, f"{page}: emofuse {name} has no {word}"


@pytest.mark.parametrize("block", [each for each in of("console") if each.not_run is None], ids=str)
def test_commands_run(block, workshop):
    workshop.run(block)


def plain(line: str) -> str:
    """A line of output without what differs between machines: numbers, widths of columns, bars."""
    line = re.sub(r"\*\*|[#█]+", "", line)
    line = re.sub(r"[+−-]?\d[\d.,:]*", "0", line)
    return re.sub(r"\s+|-{2,}", " ", line).strip()


def shows(line: str, printed: list[str]) -> bool:
    parts = [re.escape(plain(part)) for part in line.split("...")]
    return any(re.fullmatch(r"\s*.*\s*".join(parts), each) for each in printed)


def outputs() -> list[tuple[Block, Block]]:
    """The pairs of a block that runs and the block behind it that shows its output."""
    pairs = []
    for page in pages():
        blocks = read_blocks(page)
        pairs += [
            (first, second)
            for first, second in pairwise(blocks)
            if second.language == "text"
            and second.not_run is None
            and first.language == "console"
            and first.not_run is None
        ]
    return pairs


@pytest.mark.parametrize(("block", "shown"), outputs(), ids=str)
def test_the_output_that_a_page_shows_is_what_is_printed(block, shown, workshop):
    printed = [plain(line) for line in workshop.run(block).splitlines()]
    lines = [line for line in shown.text.splitlines() if line.strip() not in {"", "..."}]
    assert not [line for line in lines if not shows(line, printed)], "\n".join(printed)


def test_a_line_that_is_not_printed_is_noticed():
    assert shows("run 1/9: LBP ... (0.0 s)", [plain("run 2/9: LBP, accuracy 0.3 (0.1 s)")])
    assert not shows("run 1/9: FAUs ...", [plain("run 2/9: LBP, accuracy 0.3 (0.1 s)")])


PLACEHOLDERS = {"OWNER/NAME": "owner/name", "COMMIT": 40 * "a", "HASH": 64 * "a"}
RUN = {"features", "head", "train", "target", "split", "ensemble", "refit", "fold"}


def check_yaml(block: Block, folder: Path) -> str:
    """Validate a block as the spec that its keys make it, and return what it is."""
    path = folder / (block.file_name or "block.yaml")
    text = block.text
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    data: dict[str, Any] = yaml.safe_load(text)
    keys = set(data)
    path.write_text(text, encoding="utf-8")
    if "factors" in keys:
        read_sweep_spec(path)
        return "sweep"
    if {"dataset", "cache", "runs"} <= keys:
        read_pipeline_spec(path)
        return "pipeline"
    if keys <= {"dataset", "defaults"} and "dataset" in keys:
        parse_spec(DATASETS.find(data["dataset"]["kind"]), data["dataset"], str(block))
        if target := data.get("defaults", {}).get("target"):
            TypeAdapter(TargetSpec).validate_python(target)
        return "dataset"
    if keys <= {"streams", "face", "clip", "views"}:
        TypeAdapter(FaceSpec).validate_python(data.get("face", {}))
        path.write_text(yaml.safe_dump({"streams": [{"kind": "lbp"}], **data}), encoding="utf-8")
        read_cache_spec(path)
        return "cache spec"
    if {"from", "to", "labels"} <= keys:
        TypeAdapter(LabelMapSpec).validate_python({"name": "block", **data})
        return "label map"
    if keys == {"runs"} or keys <= RUN:
        runs = data.get("runs", [{"name": "run", "features": {"streams": ["lbp"]}, **data}])
        whole = {"dataset": {"kind": "demo"}, "cache": "demo", "runs": runs}
        path.write_text(yaml.safe_dump(whole), encoding="utf-8")
        read_pipeline_spec(path)
        return "runs"
    assert "kind" in keys, f"{block}: no spec has the keys {sorted(keys)}"
    TypeAdapter(DatasetSpec).validate_python(data)
    return "dataset"


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_a_valid_spec(block, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOFUSE_STATE_DIR", str(tmp_path / "state"))
    for each in read_blocks(block.page):  # files that a block names: plugins, the pipeline of a sweep
        if each.file_name:
            (tmp_path / each.file_name).write_text(each.text, encoding="utf-8")
    check_yaml(block, tmp_path)


def test_every_kind_of_dataset_has_an_example():
    data = [yaml.safe_load(block.text) for block in read_blocks(DOCS / "datasets.md") if block.language == "yaml"]
    assert {each["dataset"]["kind"] for each in data} == set(DATASETS.names())


def test_the_targets_of_the_table_are_valid():
    text = (DOCS / "targets.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\{kind: .*?\})`", text, re.MULTILINE)
    kinds = [TypeAdapter(TargetSpec).validate_python(yaml.safe_load(target)).kind for target in found]
    assert kinds == ["class", "distribution", "regression", "multilabel"]


def python_pages() -> list[Path]:
    return list(dict.fromkeys(block.page for block in of("python")))


@pytest.mark.parametrize("page", python_pages(), ids=lambda page: page.name)
def test_python_runs(page, workshop: Workshop, monkeypatch):
    """The blocks of a page run one after another, as a reader pastes them, in the folder of the tutorial."""
    monkeypatch.syspath_prepend(str(workshop.folder))
    names: dict[str, Any] = {"__name__": page.stem}
    with inside(workshop.folder):
        for block in read_blocks(page):
            if block.language != "python" or block.not_run is not None:
                continue
            workshop.save(block)
            if block.file_name:  # a module, as specs must be of one to reach the workers
                module = import_module(Path(block.file_name).stem)
                names |= vars(module)
                monkeypatch.delitem(sys.modules, module.__name__)
                monkeypatch.setitem(sys.modules, module.__name__, module)
            else:
                exec(compile(block.text, str(block), "exec"), names)


def test_the_reader_of_the_cache_format_reads_what_emofuse_built(workshop):
    check_same(workshop.folder / "emofuse-runs/first/features.zarr")


def test_weights_that_pages_fetch_are_in_the_registry():
    from emofuse.weights import REGISTRY

    texts = [page.read_text(encoding="utf-8") for page in [*pages(), *sorted(ROOT.glob("*s/*.yaml"))]]
    names = {
        name
        for text in texts
        for line in re.findall(r"emofuse weights fetch ([a-z][^#`]*?)(?:`|#|$)", text, re.MULTILINE)
        for name in line.split()
    }
    names = {name.strip("`.,") for name in names}
    assert {"resnet50-v1", "places365"} <= names
    assert names <= set(REGISTRY)


def test_blocks_that_do_not_run_say_why():
    reasons = [block.not_run for block in BLOCKS if block.not_run is not None]
    assert not [reason for reason in reasons if len(reason.split()) < 2]
