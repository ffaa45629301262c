"""The recipes for clusters: options that exist, names that agree, a script that builds."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from workshop import DOCS

from docs_site.commands import find_command

CLUSTER = list(yaml.safe_load_all((DOCS / "kubernetes/cluster.yaml").read_text(encoding="utf-8")))
BUILD = yaml.safe_load((DOCS / "kubernetes/build.yaml").read_text(encoding="utf-8"))
JOBQUEUE = yaml.safe_load((DOCS / "slurm/jobqueue.yaml").read_text(encoding="utf-8"))


def options_of_dask(command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", f"distributed.cli.dask_{command}", "--help"], check=True, capture_output=True, text=True
    )
    return set(re.findall(r"--[a-z-]+", done.stdout))


def options_of_emofuse(*words: str) -> set[str]:
    _, command, _ = find_command(list(words))
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


def test_the_job_that_builds_is_a_command_of_emofuse():
    words = containers()["build"]["args"]
    assert words[:3] == ["emofuse", "cache", "build"]
    assert given_options(words) <= options_of_emofuse("cache", "build")


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
