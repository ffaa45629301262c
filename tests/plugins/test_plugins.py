"""Kinds of one's own, from files outside of the package, as first-class citizens of the command line."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import call
from fresh_processes import FreshProcesses

from emofuse.cache.reader import open_cache
from emofuse.doctor.probe import ProbeReply
from emofuse.errors import EmofuseError, PluginError, SpecError
from emofuse.metrics import METRICS
from emofuse.results import list_runs
from emofuse.specs import load_plugins, read_cache_spec, read_pipeline_spec, read_sweep_spec
from emofuse.specs.plugins import loaded_plugins, trusted_file
from emofuse.specs.streams import STREAMS
from emofuse.testing import check_dataset, check_head, check_metric, check_stream

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")


def run_folder(folder: Path, name: str) -> Path:
    (record,) = (each for each in list_runs(folder / "emofuse-runs/mine/runs") if each.name == name)
    return folder / "emofuse-runs/mine/runs" / record.digest[:16]


def runs_done_before(output: str) -> int:
    """Return how many runs were read and not trained; reference models are not counted."""
    return sum(line.startswith("run ") and "done before" in line for line in output.splitlines())


@pytest.fixture(scope="module")
def in_a_fresh_process() -> Iterator[FreshProcesses]:
    """Runs a command in a process that has not seen what this one has loaded."""
    processes = FreshProcesses()
    yield processes
    processes.close()


def in_a_new_interpreter(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from emofuse.cli import main; main()"
    command = [sys.executable, "-c", code, *(str(each) for each in arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_stream_a_head_a_dataset_and_a_metric_go_from_a_pipeline_to_predictions(folder, in_a_fresh_process):
    call("run", "mine.yaml", "--workers", 2)
    cache = open_cache(folder / "emofuse-runs/mine/features.zarr")
    assert cache.streams["grid"].counts()["ok"] == 30
    plugin = cache.streams["grid"].spec["plugin"]
    assert plugin["path"] == str(folder / "kinds/grid.py")
    assert len(plugin["sha256"]) == 64
    run = run_folder(folder, "own head")
    record = json.loads((run / "run.json").read_text())
    assert record["spec"]["head"]["plugin"]["path"] == str(folder / "kinds/sum_head.py")
    assert {name: stream["used_dim"] for name, stream in record["streams"].items()} == {"grid": 6, "again": 12}
    assert record["spec"]["features"]["streams"] == {"grid": {"quarters": 2}, "again": {}}
    assert (folder / "emofuse-runs/mine/report/index.html").is_file()
    scores = (folder / "emofuse-runs/mine/report/metrics.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in scores[1:4]] == [
        ["own head", kind] for kind in ("sure", "balanced_accuracy", "roc_auc")
    ]
    assert "Sure answers ↑" in (folder / "emofuse-runs/mine/report/summary.md").read_text()
    assert "Sure answers ↑" in (folder / "emofuse-runs/mine/report/index.html").read_text()
    assert "done before" in call("run", "mine.yaml")

    # What comes later runs in processes that have never seen the pipeline.
    done = in_a_new_interpreter(folder, "predict", folder / "pictures/00.png", "--run", run, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["probs"]) == {"warm", "cold"}
    for command in (("cache", "verify"), ("cache", "repair"), ("cache", "retry")):
        more = ("--sample", "4") if command[-1] == "verify" else ()
        done = in_a_fresh_process(folder, *command, folder / "emofuse-runs/mine/features.zarr", *more)
        assert done.returncode == 0, done.stderr
    cached = ("--cache", folder / "emofuse-runs/mine/features.zarr", "--streams", "grid")
    train = ("train", *cached, "--batch-size", "8", "--epochs", "1", "--plugin", folder / "kinds/sure.py")
    done = in_a_fresh_process(folder, *train)
    assert done.returncode == 0, done.stderr
    done = in_a_fresh_process(folder, "report", folder / "runs", "--metrics", "sure")
    assert done.returncode == 0, done.stderr


def test_a_new_metric_retrains_nothing_and_an_unknown_one_is_named_before_anything_is_done(folder):
    text = (folder / "mine.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("roc_auc", "roc_acu"))
    with pytest.raises(SpecError, match="metrics: 'roc_acu' is unknown, did you mean 'roc_auc'"):
        call("run", "mine.yaml")
    assert not (folder / "emofuse-runs/mine").exists()
    (folder / "mine.yaml").write_text(text)
    call("run", "mine.yaml")
    (folder / "mine.yaml").write_text(text.replace("roc_auc", "ece"))
    output = call("run", "mine.yaml")
    assert runs_done_before(output) == 2
    assert "report: written" in output


REPORT = ("report", "emofuse-runs/mine/runs", "--metrics", "sure,kappa")


def test_a_later_report_finds_the_metric_of_a_plugin_by_the_record_of_the_runs(folder, in_a_fresh_process):
    text = (folder / "mine.yaml").read_text()
    without = text.replace(", kinds/sure.py]", "]").replace("metrics: [sure, balanced_accuracy, roc_auc]", "")
    (folder / "mine.yaml").write_text(without)
    call("run", "mine.yaml")
    done = in_a_fresh_process(folder, *REPORT)
    assert done.returncode == 1
    assert "metrics: 'sure' is unknown" in done.stderr
    (folder / "mine.yaml").write_text(text)
    assert runs_done_before(call("run", "mine.yaml")) == 2  # recorded in runs that are not trained again
    for record in list_runs(folder / "emofuse-runs/mine/runs"):
        assert record.plugins == [
            {"path": str(folder / "kinds/sure.py"), "sha256": sha256_of(folder / "kinds/sure.py")}
        ]
    done = in_a_fresh_process(folder, *REPORT)
    assert done.returncode == 0, done.stderr
    assert "Sure answers ↑" in (folder / "emofuse-runs/mine/runs/report/index.html").read_text()


def test_a_sweep_records_the_metric_of_a_plugin_too(folder, in_a_fresh_process):
    (folder / "ask.yaml").write_text(
        "pipeline: mine.yaml\nplugins: [kinds/sure.py]\nbase: {train: {epochs: 1, batch_size: 8}, head: sum}\n"
        "factors: {streams: [[grid]]}\n"
    )
    call("run", "mine.yaml")
    call("sweep", "ask.yaml", "--cache", folder / "emofuse-runs/mine/features.zarr")
    done = in_a_fresh_process(folder, "report", "emofuse-runs/ask/runs", "--metrics", "sure")
    assert done.returncode == 0, done.stderr


def test_the_metric_of_a_changed_or_unknown_plugin_file_is_not_computed(
    folder, in_a_fresh_process, tmp_path_factory, monkeypatch
):
    call("run", "mine.yaml")
    file = folder / "kinds/sure.py"
    text = file.read_text()
    file.write_text(text + "\n# another line\n")
    done = in_a_fresh_process(folder, *REPORT)
    assert done.returncode == 1
    assert "metrics: 'sure' is unknown" in done.stderr
    assert "sure.py: its content has changed" in done.stderr
    file.write_text(text)
    monkeypatch.setenv("EMOFUSE_STATE_DIR", str(tmp_path_factory.mktemp("another user")))
    done = in_a_fresh_process(folder, *REPORT)
    assert done.returncode == 1
    assert "you have never run this content" in done.stderr
    done = in_a_fresh_process(folder, *REPORT, "--plugin", file)
    assert done.returncode == 0, done.stderr


def test_kinds_of_one_s_own_pass_the_checks_of_the_package(folder):
    spec = read_pipeline_spec(folder / "mine.yaml")
    check_stream(spec.cache.streams[0])
    check_head(spec.runs[0].head)
    check_dataset(spec.dataset)
    check_metric(METRICS.find("balanced_accuracy"))


def test_variants_of_a_plugin_s_stream_are_factors_of_a_sweep(folder):
    (folder / "ask.yaml").write_text(
        "pipeline: mine.yaml\nbase: {train: {epochs: 2, batch_size: 8}, head: sum}\n"
        "factors: {streams: [[grid]], grid_quarters: [1, 2, 4]}\n"
    )
    call("run", "mine.yaml")
    text = call("sweep", "ask.yaml", "--cache", folder / "emofuse-runs/mine/features.zarr")
    assert "grid_quarters=1" in text
    used = {record.streams["grid"]["used_dim"] for record in list_runs(folder / "emofuse-runs/ask/runs")}
    assert len(used) == 1
    assert used <= {3, 6, 12}
    found = call("results", "emofuse-runs/ask", "--where", "grid_quarters=2")
    assert "grid_quarters=2" in found
    assert "grid_quarters=1" not in found
    (folder / "ask.yaml").write_text("pipeline: mine.yaml\nfactors: {grid_quarters: [3]}\n")
    with pytest.raises(SpecError, match=r"factors\.grid_quarters\[0\]: must be 1, 2 or 4, got 3"):
        read_sweep_spec(folder / "ask.yaml")


def test_the_same_variant_written_in_three_ways_is_one_run(folder):
    call("run", "mine.yaml")
    runs = folder / "emofuse-runs/mine/runs"
    before = len(list_runs(runs))
    text = (folder / "mine.yaml").read_text()
    for features in ("{streams: [grid], grid_quarters: 4}", "{streams: {grid: {quarters: 4}}}"):
        (folder / "mine.yaml").write_text(text.replace("{streams: [grid]}", features))
        assert "done before" in call("run", "mine.yaml")
    assert len(list_runs(runs)) == before


def test_a_file_of_somebody_else_is_never_run_by_itself(folder, in_a_fresh_process, tmp_path_factory, monkeypatch):
    call("run", "mine.yaml")
    run, cache = run_folder(folder, "own head"), folder / "emofuse-runs/mine/features.zarr"
    monkeypatch.setenv("EMOFUSE_STATE_DIR", str(tmp_path_factory.mktemp("another user")))
    predicted = ("predict", folder / "pictures/00.png", "--run", run)
    for command in (predicted, ("cache", "verify", cache, "--sample", 2)):
        done = in_a_fresh_process(folder, *command)
        assert done.returncode == 1
        assert "you have never run this content" in done.stderr
    files = (folder / "kinds" / name for name in ("grid.py", "sum_head.py"))
    done = in_a_fresh_process(folder, *predicted, *(word for file in files for word in ("--plugin", file)))
    assert done.returncode == 0, done.stderr
    assert in_a_fresh_process(folder, *predicted).returncode == 0  # now they have


def test_a_plugin_that_changed_since_is_refused_and_a_moved_one_is_found(folder, in_a_fresh_process):
    call("run", "mine.yaml")
    predicted = ("predict", folder / "pictures/00.png", "--run", run_folder(folder, "package's head"))
    file = folder / "kinds/grid.py"
    text = file.read_text()
    file.write_text(text + "\n# another line\n")
    done = in_a_fresh_process(folder, *predicted)
    assert done.returncode == 1
    assert "its content has changed" in done.stderr
    file.unlink()
    done = in_a_fresh_process(folder, *predicted)
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    moved = folder / "elsewhere.py"
    moved.write_text(text)
    load_plugins([moved])  # as a pipeline that was moved with it does
    assert in_a_fresh_process(folder, *predicted).returncode == 0


def test_a_build_with_a_changed_plugin_goes_on_and_records_it(folder):
    call("run", "mine.yaml")
    file = folder / "kinds/grid.py"
    file.write_text(file.read_text() + "\n# a comment\n")
    call("run", "mine.yaml")
    (now,) = (each for each in loaded_plugins() if each.path == file and each.sha256 == sha256_of(file))
    assert open_cache(folder / "emofuse-runs/mine/features.zarr").streams["grid"].spec["plugin"]["sha256"] == now.sha256


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_spec_of_a_plugin_is_sent_with_its_file(folder):
    spec = read_pipeline_spec(folder / "mine.yaml")
    assert pickle.loads(pickle.dumps(spec)) == spec
    (folder / "spec.pickle").write_bytes(pickle.dumps(spec))
    code = "import pickle, pathlib; print(pickle.loads(pathlib.Path('spec.pickle').read_bytes()).cache.streams[0].kind)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "grid", done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "declares no kind"),
        ("x = 1\nraise KeyError('gone')\n", r"faulty\.py, line 2: KeyError: 'gone'"),
        ("def f(:\n", r"faulty\.py, line 1: SyntaxError"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
    ],
)
def test_a_faulty_plugin_is_one_clear_error(folder, text, expected):
    (folder / "faulty.py").write_text(text)
    (folder / "spec.yaml").write_text("plugins: [faulty.py]\nstreams: [{kind: lbp}]\n")
    with pytest.raises(SpecError, match=rf"spec\.yaml, 1 problem: plugins: plugin .*{expected}"):
        read_cache_spec(folder / "spec.yaml")


def test_a_missing_plugin_and_a_faulty_list_of_them_are_named(folder):
    (folder / "spec.yaml").write_text("plugins: [nowhere.py]\nstreams: [{kind: lbp}]\n")
    with pytest.raises(SpecError, match=r"plugins: plugin .*nowhere\.py: cannot be read \(No such file"):
        read_cache_spec(folder / "spec.yaml")
    (folder / "spec.yaml").write_text("plugins: {a: b}\nstreams: [{kind: lbp}]\n")
    with pytest.raises(SpecError, match="plugins: expected a list of Python files, got"):
        read_cache_spec(folder / "spec.yaml")


def test_a_kind_that_is_there_already_is_refused(folder):
    text = (folder / "kinds/grid.py").read_text()
    (folder / "own.py").write_text(text.replace('"grid"', '"lbp"'))
    with pytest.raises(PluginError, match=r"own\.py: the kind 'lbp' of a stream is also that of emofuse"):
        load_plugins([folder / "own.py"])
    load_plugins([folder / "kinds/grid.py"])
    (folder / "own.py").write_text(text + "\n# another file\n")
    with pytest.raises(PluginError, match=r"the kind 'grid' of a stream is also that of plugin .*kinds/grid\.py"):
        load_plugins([folder / "own.py"])
    assert STREAMS.find("lbp").__module__ == "emofuse.streams.texture"


def test_an_unknown_kind_names_the_nearest_of_a_plugin_too(folder):
    text = (folder / "mine.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("{kind: grid}", "{kind: grit}"))
    with pytest.raises(SpecError, match=r"cache\.streams\[0\]\.kind: 'grit' is unknown, did you mean 'grid'"):
        read_pipeline_spec(folder / "mine.yaml")


def test_a_faulty_variant_is_named_with_its_place(folder):
    text = (folder / "mine.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("{quarters: 2}", "{quarters: 3}"))
    with pytest.raises(SpecError, match=r"runs\[0\]\.features\.streams\.grid\.quarters: must be 1, 2 or 4, got 3"):
        read_pipeline_spec(folder / "mine.yaml")
    (folder / "mine.yaml").write_text(text.replace("{quarters: 2}", "{quartes: 2}"))
    with pytest.raises(
        SpecError, match=r"grid\.quartes: no variant .*did you mean 'quarters'\? \(there are: quarters, pca\)"
    ):
        read_pipeline_spec(folder / "mine.yaml")


def test_what_was_named_is_remembered_in_one_file(folder):
    load_plugins([folder / "kinds/grid.py"])
    known = json.loads(trusted_file().read_text())
    assert list(known.values()) == [[str(folder / "kinds/grid.py")]]
    with pytest.raises(EmofuseError):
        load_plugins([folder / "nothing.py"])


def test_workers_of_a_dask_cluster_take_it(folder):
    from distributed import LocalCluster

    (folder / "ask.yaml").write_text(
        "pipeline: mine.yaml\nbase: {train: {epochs: 2, batch_size: 8}, head: sum}\n"
        "factors: {streams: [[grid]], grid_quarters: [1, 4]}\n"
    )
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        call("run", "mine.yaml", "--scheduler", cluster.scheduler_address)
        cached = ("--cache", folder / "emofuse-runs/mine/features.zarr")
        text = call("sweep", "ask.yaml", *cached, "--scheduler", cluster.scheduler_address)
    assert open_cache(folder / "emofuse-runs/mine/features.zarr").streams["grid"].counts()["ok"] == 30
    assert "grid_quarters" in text


def test_the_doctor_examines_a_pipeline_with_kinds_of_one_s_own(folder, monkeypatch):
    replies = {
        "cuda": [],
        "codec": "zarrs.ZarrsCodecPipeline",
        "bfloat16": 1.0,
        "products": 1.0,
        "runtime": {"auto": "openvino", "by_variable": False, "openvino": "2026.4.1", "speed_up": 2.0},
    }  # of the machine, whatever is to be done on it; tests of the command look at the real one
    monkeypatch.setattr(
        "emofuse.doctor.run_probes", lambda names: {name: ProbeReply(replies.get(name, "1")) for name in names}
    )
    assert "mine" in call("doctor", "mine.yaml")
