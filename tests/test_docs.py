"""The recipes in docs/: configuration that parses, options that exist, names that agree, links that lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import TypeAdapter

from emofuse.cli import app
from emofuse.specs import TargetSpec, parse_spec
from emofuse.specs.datasets import DATASETS

DOCS = Path(__file__).parents[1] / "docs"
CLUSTER = list(yaml.safe_load_all((DOCS / "kubernetes/cluster.yaml").read_text(encoding="utf-8")))
BUILD = yaml.safe_load((DOCS / "kubernetes/build.yaml").read_text(encoding="utf-8"))
JOBQUEUE = yaml.safe_load((DOCS / "slurm/jobqueue.yaml").read_text(encoding="utf-8"))


def options_of_dask(command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", f"distributed.cli.dask_{command}", "--help"], check=True, capture_output=True, text=True
    )
    return set(re.findall(r"--[a-z-]+", done.stdout))


def options_of_emofuse(*names: str) -> set[str]:
    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    return {option for parameter in command.params for option in parameter.opts}


def containers() -> dict[str, dict[str, Any]]:
    cluster, group = CLUSTER
    return {
        "scheduler": cluster["spec"]["scheduler"]["spec"]["containers"][0],
        "worker": cluster["spec"]["worker"]["spec"]["containers"][0],
        "gpu": group["spec"]["worker"]["spec"]["containers"][0],
        "build": BUILD["spec"]["template"]["spec"]["containers"][0],
    }


def given_options(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


@pytest.mark.parametrize("command", ["scheduler", "worker"])
def test_every_option_given_to_dask_exists(command):
    texts = [(DOCS / name).read_text(encoding="utf-8") for name in ("clusters.md", "slurm/gpu-workers.sbatch")]
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines() if f"dask {command} " in line]
    given = {option for line in lines for option in re.findall(r"--[a-z-]+", line.split("#")[0])}
    for name in ("scheduler",) if command == "scheduler" else ("worker", "gpu"):
        assert containers()[name]["args"][:2] == ["dask", command]
        given |= given_options(containers()[name]["args"])
    if command == "worker":
        given |= given_options(JOBQUEUE["jobqueue"]["slurm"]["worker-extra-args"])
    assert given
    assert given <= options_of_dask(command) | {"--tls-ca-file", "--tls-cert", "--tls-key"}
    assert {"--tls-ca-file", "--tls-cert", "--tls-key"} <= options_of_dask(command)


def test_every_command_of_emofuse_exists():
    words = containers()["build"]["args"]
    assert words[:3] == ["emofuse", "cache", "build"]
    assert given_options(words) <= options_of_emofuse("cache", "build")
    for name in ("analysis.md", "clusters.md", "stores.md"):
        text = (DOCS / name).read_text(encoding="utf-8").replace("\\\n", " ")
        commands = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("emofuse ")]
        assert commands
        for _, *rest in commands:
            names = rest[: 2 if rest[0] == "cache" else 1]
            assert given_options(rest) <= options_of_emofuse(*names), rest


def test_the_manifests_agree_with_one_another():
    cluster, group = CLUSTER
    assert (cluster["kind"], group["kind"], BUILD["kind"]) == ("DaskCluster", "DaskWorkerGroup", "Job")
    assert cluster["apiVersion"] == group["apiVersion"] == "kubernetes.dask.org/v1"
    name = cluster["metadata"]["name"]
    assert group["spec"]["cluster"] == name
    service = cluster["spec"]["scheduler"]["service"]
    assert service["selector"] == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    assert f"tcp://{name}-scheduler:{service['ports'][0]['port']}" in containers()["build"]["args"]
    assert len({container["image"] for container in containers().values()}) == 1
    working = [containers()[each] for each in ("worker", "gpu", "build")]
    for key in ("env", "envFrom", "volumeMounts"):
        assert working[0][key] == working[1][key] == working[2][key]
    assert containers()["gpu"]["args"][-2:] == ["--resources", "GPU=1"]


def test_the_settings_of_slurm_are_one_worker_a_core():
    settings = JOBQUEUE["jobqueue"]["slurm"]
    assert settings["processes"] == settings["cores"]
    assert int(settings["memory"].split()[0]) / settings["processes"] >= 2.5


def test_the_script_for_slurm_builds_on_its_own_workers(tmp_path, monkeypatch):
    """With a stand-in for dask-jobqueue's cluster, whose workers are local."""
    (tmp_path / "dask_jobqueue.py").write_text(
        "from distributed import LocalCluster\n"
        "class SLURMCluster(LocalCluster):\n"
        "    def __init__(self):\n"
        "        super().__init__(n_workers=0, threads_per_worker=1, dashboard_address=':0', host='127.0.0.1')\n"
        "    def scale(self, jobs):\n"
        "        return super().scale(n=jobs)\n"
    )
    (tmp_path / "emofuse").write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    (tmp_path / "emofuse").chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    command = [sys.executable, DOCS / "slurm/build.py", "--jobs", "1", "--", "emoset", "--spec", "paper"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    first, *_, last = done.stdout.splitlines()
    address = first.removeprefix("scheduler: ")
    assert address.startswith("tcp://127.0.0.1:"), done.stderr
    assert last == str(["cache", "build", "emoset", "--spec", "paper", "--scheduler", address])
    assert done.returncode == 3


def test_the_page_on_datasets_has_an_example_of_every_kind_that_parses():
    text = (DOCS / "datasets.md").read_text(encoding="utf-8")
    kinds = set()
    for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL):
        data = yaml.safe_load(block)
        kinds.add(data["dataset"]["kind"])
        model = DATASETS.find(data["dataset"]["kind"])
        parse_spec(model, data["dataset"], block)
        if target := data.get("defaults", {}).get("target"):
            TypeAdapter(TargetSpec).validate_python(target)
    assert kinds == set(DATASETS.names())
    headings = {
        re.sub(r"[^\w -]", "", line[3:].lower()).replace(" ", "-") for line in text.splitlines() if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= headings


def test_every_test_that_holds_a_protection_exists():
    rows = [line for line in (DOCS / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| Fault |", "| --- |"))]
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`([^`]+\.py)::(test_\w+)`", row)
        assert named, f"no test holds: {row}"
        for file, function in named:
            text = (Path(__file__).parent / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", text, flags=re.MULTILINE), f"{file} has no {function}"


@pytest.mark.parametrize("name", ["clusters.md", "datasets.md", "stores.md"])
def test_links_lead_to_files(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (DOCS / target).exists(), target
    for path in re.findall(r"docs/[a-z/.-]+[a-z]", text, flags=re.IGNORECASE):
        assert (DOCS.parent / path).exists(), path
