"""The README tells the truth: its Python runs, its commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.specs import bundled_specs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_stream_runs_as_it_stands(tmp_path):
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class MeanColour" in block)
    path = tmp_path / "mean_colour.py"
    path.write_text(code)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_pipeline_is_valid(tmp_path):
    from emofuse.specs import read_pipeline_spec

    path = tmp_path / "mine.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL).group(1))
    assert [run.name for run in read_pipeline_spec(path).runs] == ["MobileNetV2", "FAUs + MobileNetV2"]


COMMANDS = {*re.findall(r"`emofuse ([a-z-]+)", README), *re.findall(r"^emofuse ([a-z-]+) [a-z]", README, re.MULTILINE)}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_that_is_named_exists(name):
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_every_file_that_is_linked_exists(link):
    assert (ROOT / link).exists()


def test_every_pipeline_that_is_run_exists():
    assert set(re.findall(r"emofuse run (\w+)(?![\w.])", README)) <= {*bundled_specs("pipelines"), "mine"}


def test_no_placeholder_is_left():
    assert not re.findall(r"\b[A-Z]+_TABLE\b", README)


def test_every_weight_that_is_fetched_is_in_the_registry():
    from emofuse.weights import REGISTRY

    texts = [README, *(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*s/*.yaml")))]
    names = {
        name for text in texts for line in re.findall(r"emofuse weights fetch (.+)", text) for name in line.split()
    }
    names = {name.strip("`.,") for name in names}
    assert {"resnet50-v1", "places365"} <= names
    assert names <= set(REGISTRY)


def test_the_examples_of_targets_are_valid(tmp_path):
    from emofuse.specs import read_pipeline_spec

    section = README.partition("## Labels as they are")[2].partition("\n## ")[0]
    kinds = []
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)):
        (tmp_path / f"{number}.yaml").write_text(text)
        kinds += [run.target.kind for run in read_pipeline_spec(tmp_path / f"{number}.yaml").runs]
    assert kinds == ["regression", "regression", "distribution"]
    for number, target in enumerate(re.findall(r"^\| `(\{kind: .*?\})`", section, re.MULTILINE)):
        text = (
            f"dataset: {{kind: demo}}\ncache: demo\nruns: [{{name: a, features: {{streams: [lbp]}}, target: {target}}}]"
        )
        (tmp_path / f"row{number}.yaml").write_text(text)
        kinds.append(read_pipeline_spec(tmp_path / f"row{number}.yaml").runs[0].target.kind)
    assert kinds[3:] == ["class", "distribution", "regression", "multilabel"]
