"""The benchmarks: their contenders learn alike, their arithmetic is right, and they run where little is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import (  # noqa: E402
    cross_validated,
    extraction,
    extraction_profile,
    faces,
    grid,
    heads,
    heads_accuracy,
    results_file,
    speech,
    views,
)
from benchmarks.contenders import Clock, PlainHead, Shape, Trained, Work, member_of, write_hdf5  # noqa: E402
from benchmarks.limits import Ceilings, cost_of, limits, memory_bytes  # noqa: E402
from benchmarks.process_tree import ProcessTree  # noqa: E402
from benchmarks.synthetic import CLASSES, DIMS, make_synthetic  # noqa: E402
from emofuse.cache.reader import open_cache  # noqa: E402
from emofuse.heads import make_head  # noqa: E402
from emofuse.heads.members import HeadMember  # noqa: E402
from emofuse.training.machine import Machine  # noqa: E402

CPU = Machine(torch.device("cpu"))
SMALL_DIMS = {"lbp": 40, "resnet50": 60, "objects": 7}
SHAPE = Shape(16, 16, 32, train_rows=640, heads=3, epochs=5, learning_rate=3e-3)

NOT_THERE = """
import sys
missing = {"zarr", "polars", "dask", "distributed", "mediapipe", "ultralytics", "torchvision", "matplotlib", "jinja2",
           "safetensors", "psutil", "optuna", "s3fs", "fsspec", "sklearn", "scipy", "PIL", "pandas"}

def without_missing(find):
    return lambda name, path=None, target=None: None if name.split(".")[0] in missing else find(name, path, target)

for finder in sys.meta_path:
    if hasattr(finder, "find_spec"):
        finder.find_spec = without_missing(finder.find_spec)
"""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    data = make_synthetic(800, 400, SMALL_DIMS)
    path = tmp_path_factory.mktemp("benchmark") / "features.h5"
    write_hdf5(data, path)
    return Work(data, SHAPE, CPU.device, path)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_every_benchmark_can_be_imported(name):
    import_module("benchmarks" if name == "__init__" else f"benchmarks.{name}")


# --------------------------------------------------------------------------------------- where little is installed


def run_with_little(code):
    done = subprocess.run(
        [sys.executable, "-c", NOT_THERE + code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_engine_and_the_benchmarks_import_where_only_torch_numpy_and_h5py_are():
    run_with_little("import emofuse.training.engine, benchmarks.heads, benchmarks.grid")


@pytest.mark.slow
def test_heads_are_measured_where_little_is_installed(tmp_path):
    arguments = ["heads", "--smoke", "--repeats", "1", "--out", str(tmp_path)]
    run_with_little(f"sys.argv[1:] = {arguments[1:]}\nfrom benchmarks.heads import main\nmain()")
    result = json.loads((tmp_path / "heads_smoke.json").read_text())
    assert result["smoke"]
    assert result["table"]["scaled_down"]
    assert str(tmp_path) not in json.dumps(result)
    for shape in result["shapes"].values():
        assert set(shape["contenders"]) == {
            "dataloader_hdf5",
            "plain_loop",
            "summed_losses",
            "emofuse",
            "emofuse_bfloat16",
        }
        assert shape["contenders"]["dataloader_hdf5"]["tried_rows_per_s"].keys() == {"num_workers=0", "num_workers=2"}
        assert shape["emofuse_over"].keys() == {"dataloader_hdf5", "plain_loop", "summed_losses"}
        assert shape["limits"]["emofuse"]["seconds"] > 0
        assert sum(shape["profile"]["emofuse"]["shares"].values()) == pytest.approx(1, abs=0.01)
        assert shape["profile"]["emofuse"]["shares"]["matrix products"] > 0
    points = [point for curve in result["growth"].values() for point in curve]
    assert {point["heads"] for point in points} == {1, 3}
    assert all(point["peak_bytes"] > 0 and point["seconds_per_epoch"] > 0 for point in points)


def test_the_grid_is_measured_part_by_part(tmp_path):
    grid.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "grid_smoke.json").read_text())
    assert [len(job) for job in result["modes"].values()] == [2, 2]
    assert [len(entry["streams"]) for entry in result["five"]["configurations"]] == [1, 2, 4, 4, 4]
    found = result["grid"]
    assert found["heads_done"] == found["heads"] == sum(group["heads"] for group in found["groups"]) == 120
    assert found["finished"]
    assert len(found["groups"]) > 1
    assert found["seconds_for_all"] == found["seconds"]


def test_the_phases_of_builds_are_measured(tmp_path):
    pytest.importorskip("openvino")
    extraction_profile.main(["--smoke", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "extraction_profile_smoke.json").read_text())
    assert list(result["cpu_s"]) == list(extraction_profile.BUILDS)
    torch_build, first, kept = result["cpu_s"].values()
    assert "import PyTorch" in torch_build
    assert "import PyTorch" not in kept
    assert first["convert networks"] > 0
    assert "open kept networks" in kept
    assert all(build["resnet50 and places365: networks"] > 0 for build in result["cpu_s"].values())


def test_five_configurations_out_of_time_say_how_far_they_came():
    job = grid.five_job(grid.SMOKE).lasting(3)
    found = grid.run_five(job, "float32", CPU, budget_s=0.0)
    assert (found["epochs_done"], found["epochs"]) == (1, 3)
    assert found["seconds_for_all"] == pytest.approx(3 * found["seconds"], rel=0.01)


SLEEPER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_parts_on_a_gpu_have_limits_and_none_ends_the_others(tmp_path, monkeypatch):
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "LEAST_S", 0.5)
    monkeypatch.chdir(tmp_path)
    for name, text in {"sleeper": SLEEPER, "failing": "print('about to')\nraise SystemExit(3)", "quick": ""}.items():
        (tmp_path / f"{name}.py").write_text(text)
    names = ("sleeper", "failing", "quick", "late")
    parts = [gpu.Part(name, ("quick" if name == "late" else name,), 2.0) for name in names]
    monkeypatch.setattr(gpu, "parts_of", lambda *_, **__: parts)
    parser = gpu.argparse.ArgumentParser.add_argument

    def any_name(self, *args, **options):
        return parser(self, *args, **({k: v for k, v in options.items() if k != "choices"}))

    monkeypatch.setattr(gpu.argparse.ArgumentParser, "add_argument", any_name)
    gpu.main(["--parts", *names[:3], "--limit-s", "30", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [found[name]["ended"] for name in names[:3]] == ["ended after 2 s", "failed with code 3", "done"]
    assert found["failing"]["last_lines"] == ["about to"]
    child = int(found["sleeper"]["last_lines"][0])
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()
    assert gpu.run_part(parts[3], 0.2) == {"ended": "not begun: 0 s were left"}


def test_the_limits_of_the_parts_on_a_gpu_fit_twelve_minutes(tmp_path):
    from benchmarks import gpu

    parts = gpu.parts_of("cuda", tmp_path, smoke=False)
    assert gpu.TOTAL_S + gpu._GRACE_S * 2 <= 720
    assert sum(part.limit_s for part in parts[:3]) <= gpu.TOTAL_S  # the fourth takes what is left
    for part in parts[1:]:
        import_module(part.command[0])


def test_extraction_on_a_gpu_names_the_packages_that_it_lacks(tmp_path, monkeypatch):
    from benchmarks import gpu_extraction

    monkeypatch.setattr(gpu_extraction, "find_spec", lambda name: None if name in {"zarr", "mediapipe"} else name)
    gpu_extraction.main(["--device", "cpu", "--smoke", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "gpu_extraction_smoke.json").read_text())
    assert result["not_measured"] == "these packages are not installed: zarr, mediapipe"


def test_probes_are_measured_part_by_part(tmp_path):
    from benchmarks import probe

    probe.main(["--smoke", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "probe_smoke.json").read_text())
    assert [result[part]["fits"] for part in ("linear", "rbf")] == [63 * 3 * 3, 31 * 13 * 3]
    assert result["linear"]["best"]["accuracy"] > max(1.5 / CLASSES, 0.2)
    assert len(result["linear"]["accuracy"]) == 7
    assert result["sklearn"]["estimated_seconds_of_all"] >= 0


def test_a_grid_that_runs_out_of_time_says_how_far_it_came():
    *_, last = grid.run_grid(grid.SMOKE, "float32", CPU, budget_s=0.0)
    assert not last["finished"]
    assert 0 < last["heads_done"] < last["heads"]
    assert last["seconds_for_all"] > last["seconds"]


def test_the_whole_grid_asks_for_a_gpu(capsys):
    with pytest.raises(SystemExit):
        grid.main(["--device", "cpu"])
    assert "2,700 heads of the paper's size ask for a GPU: use --device cuda, or --smoke" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what is measured


def test_the_planted_signal_is_neither_nothing_nor_everything(work):
    accuracies = {}
    for name, ways in heads.contenders_of(work).items():
        trained = next(iter(ways.values()))(work, score=True)
        assert trained.seconds > 0
        assert trained.rows == 4 * 640
        accuracies[name] = np.mean(trained.accuracies)
    assert accuracies.keys() >= {"dataloader_hdf5", "plain_loop", "summed_losses", "sklearn_mlp", "emofuse"}
    assert all(0.35 < accuracy < 0.85 for accuracy in accuracies.values()), accuracies
    alike = [accuracy for name, accuracy in accuracies.items() if name != "sklearn_mlp"]
    assert max(alike) - min(alike) < 0.1, accuracies


def test_every_contender_is_asked_for_the_accuracy_once_only(work):
    for ways in heads.contenders_of(replace(work, shape=replace(SHAPE, epochs=2, train_rows=64))).values():
        assert next(iter(ways.values()))(work, score=False).accuracies == ()


def test_the_plain_head_is_the_engine_s_but_for_the_vectors_of_missing_streams():
    shape = Shape(16, 24, 32, train_rows=64, heads=1, depth=3)
    plain = PlainHead(shape, SMALL_DIMS)
    ours = make_head(shape.head, [HeadMember(tuple(SMALL_DIMS))], SMALL_DIMS, CLASSES)
    sizes = {name: tensor.numel() for name, tensor in ours.named_parameters()}
    missing = sum(size for name, size in sizes.items() if name.endswith(".missing"))
    assert sum(tensor.numel() for tensor in plain.parameters()) == sum(sizes.values()) - missing


def test_a_part_of_an_epoch_has_the_same_share_of_validation_rows_from_the_whole_table():
    data = make_synthetic(1600, 160, SMALL_DIMS)
    fold = data.fold(400)
    assert (len(fold.train), len(fold.val)) == (400, 40)
    assert fold.train.max() > 1200
    assert fold.val.min() >= 1600
    assert len(np.unique(fold.train)) == 400
    folds = data.folds(4)
    assert sorted(np.concatenate([fold.val for fold in folds])) == list(range(1760))
    assert all(not set(fold.train) & set(fold.val) for fold in folds)


def test_columns_are_about_standardised():
    data = make_synthetic(3000, 10, SMALL_DIMS)
    for scaling in data.scaling.values():
        assert np.abs(scaling.center).max() < 0.35
        assert np.abs(scaling.scale - 1).max() < 0.35


def test_the_clock_leaves_out_the_first_epoch():
    assert Clock([10.0, 11.0, 13.0]).seconds == 3.0


def test_ratios_are_taken_round_by_round():
    def trained(seconds):
        return Trained(2, seconds, 100, 10, (0.5, 0.7))

    rounds = {
        "plain_loop": [trained(4.0), trained(40.0), trained(4.0)],
        "dataloader_hdf5": [trained(10.0), trained(100.0), trained(8.0)],
        "emofuse": [trained(2.0), trained(20.0), trained(1.0)],
    }
    found = heads.ratios(rounds, "cpu")
    assert found["emofuse_over"]["plain_loop"] == {"median": 2.0, "each": [2.0, 2.0, 4.0]}
    assert found["goals"]["plain_loop"] == {"goal": 2.0, "reached": {"emofuse": True}}
    assert found["goals"]["dataloader_hdf5"]["reached"] == {"emofuse": True}
    described = heads.describe(rounds["emofuse"], "float32", {})
    assert described["rows_per_s"] == {"median": 100, "each": [100, 10, 200]}
    assert described["val_accuracy"]["mean"] == 0.6


def test_heads_that_do_not_fit_are_said_to_be_not_measured():
    shape = heads.CPU_SHAPES["paper's head, batch 64"]
    assert not heads._too_large(shape, 64, CPU.device)
    reason = heads._too_large(shape, 256, CPU.device)
    assert reason.startswith("256 such heads take 2")
    assert reason.endswith("GB, more than the 12 GB of this part")


# ------------------------------------------------------------------------------------------------------ arithmetic


def test_limits_count_products_and_updates_against_the_ceilings():
    member = member_of(Shape(16, 16, 50, train_rows=1000, heads=1), tuple(SMALL_DIMS), 0)
    cost = cost_of(member, SMALL_DIMS, CLASSES, CPU)
    ceilings = [Ceilings(1e9, 1e8), Ceilings(2e9, 1e8), Ceilings(9e9, 1e8)]
    found = limits([member] * 3, SMALL_DIMS, CLASSES, machine=CPU, ceilings=ceilings, rows=1000, seconds=10.0)
    assert found["flops"] == 3 * 1000 * cost.flops_per_row
    assert found["optimizer_bytes"] == 3 * 20 * 28 * cost.parameters
    assert found["arithmetic_share"] == pytest.approx(found["flops"] / 2e9 / 10, abs=1e-3)
    assert found["optimizer_share"] == pytest.approx(found["optimizer_bytes"] / 1e8 / 10, abs=1e-3)
    assert found["rest_share"] == pytest.approx(1 - found["arithmetic_share"] - found["optimizer_share"], abs=2e-3)
    assert found["limit"] == "optimizer's bytes"


def test_the_grid_is_the_paper_s_540_configurations_in_five_folds():
    members = grid.grid_members(grid.Sizes.of_paper())
    assert len(members) == 9
    assert sum(len(own) for own in members.values()) == 2700
    assert all(own[0].head.model_dump() == member.head.model_dump() for own in members.values() for member in own)


def test_groups_of_the_grid_fit_the_memory_and_hold_every_head_once():
    members = next(iter(grid.grid_members(grid.SMOKE).values()))
    dims = grid.vector_widths(grid.grid_data(grid.SMOKE)[0])
    memory = memory_bytes(members[:13], dims, CLASSES, CPU)
    groups = grid.groups_of(members, dims, CPU, memory)
    assert [member for group in groups for member in group] == members
    assert len(groups[0]) == 13
    assert all(memory_bytes(group, dims, CLASSES, CPU) <= memory for group in groups)


def test_the_fastest_mode_is_taken_and_else_the_one_expected_to_be():
    modes = {"float32": CPU, "bfloat16 products": replace(CPU, products=torch.bfloat16)}
    found = {
        "five configurations": {"float32": {"seconds_per_epoch": 1}, "bfloat16 products": {"seconds_per_epoch": 2}}
    }
    chosen = grid.fastest_modes(found, modes)
    assert chosen["five configurations"] == ("float32", CPU)
    assert chosen["part of the grid"][0] == "bfloat16 products"
    assert {machine.graphs for machine in grid.modes_of(torch.device("cuda", 0)).values()} == {True, False}


# ---------------------------------------------------------------------------------------------------- result files


def test_a_result_names_the_packages_that_are_there_and_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results_file, "PACKAGES", ("numpy", "a-package-that-nobody-has"))
    monkeypatch.setattr(sys, "argv", ["x", "--rows", "5", "--out", str(tmp_path), "--smoke", f"--out={tmp_path}"])
    path = results_file.write_result("some", {"value": 1}, script="heads", folder=tmp_path)
    result = json.loads(path.read_text())
    assert result["versions"] == {"numpy": np.__version__}
    assert result["command"] == "python -m benchmarks.heads --rows 5 --smoke"
    assert result["value"] == 1


def test_features_have_the_sizes_of_the_paper_s_streams():
    assert DIMS == {
        "lbp": 256,
        "landmarks": 1404,
        "action_units": 25,
        "places365": 2048,
        "objects": 30,
        "resnet50": 2048,
    }


def test_the_history_of_ratios_ends_with_the_results_that_are_there():
    """After a measurement: `python -m benchmarks.history`."""
    from benchmarks import history

    text = history.README.read_text(encoding="utf-8")
    shown = text[text.index(history.BEGIN) : text.index(history.END)]
    for table in history.TABLES:
        path = results_file.RESULTS / f"{table.result}.json"
        if path.is_file():
            own = shown[shown.index(f"**{table.title}**") :].split("\n\n")[1]
            row = history.row_of(table, json.loads(path.read_text()))
            assert own.splitlines()[-1] == row, f"{path.name} has been measured anew: python -m benchmarks.history"


def test_a_history_shows_each_version_once_and_leaves_out_what_was_not_measured():
    from benchmarks import history

    def version(date, ratio, cores=2):
        shape = {"emofuse_over": {"plain_loop": {"median": ratio}}}
        return {
            "date": date,
            "machine": {"cpu": "some", "cores": cores},
            "device": "cpu",
            "shapes": {"small head, batch 64": shape},
        }

    rows = [version("2026-01-01", 1.5), version("2026-01-02", 123.4), version("2026-01-02", 123.4)]
    versions = {table.result: rows if table.result == "heads" else [] for table in history.TABLES}
    first, second, *_ = history.tables_of(versions).strip().split("\n\n")[1::2]
    assert first.splitlines()[2:] == [
        "| 2026-01-01 | some, 2 cores |  |  | 1.5 |  |",
        "| 2026-01-02 | some, 2 cores |  |  | 123 |  |",
    ]
    assert "1.5" not in second


def test_arguments_that_divide_a_measurement_are_no_part_of_its_command():
    given = ["--part", "faces", "--only", "demo", "clips_demo", "--missing", "--minutes", "5", "--runs=x", "--smoke"]
    assert results_file._arguments(given) == ["--part", "faces", "--smoke"]


RESULTS = sorted(path for path in results_file.RESULTS.glob("*.json") if not path.stem.endswith("_smoke"))


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_every_result_says_how_where_and_when_it_was_measured(path):
    text = path.read_text(encoding="utf-8")
    result = json.loads(text)
    script = re.fullmatch(r"python -m benchmarks\.(\w+)( .+)?", result["command"])
    assert script is not None, f"{path.name}: {result['command']!r} is no command that anyone can give"
    assert (ROOT / "benchmarks" / f"{script[1]}.py").is_file()
    assert date.fromisoformat(result["date"])
    assert result["machine"].keys() >= {"cpu", "cores", "python", "system"}
    assert result["versions"].keys() >= {"numpy", "torch"}
    assert not result.get("smoke")
    assert "/tmp/" not in text
    assert "/home/" not in text


def test_a_tree_of_processes_counts_those_that_have_ended():
    code = "import time\nuntil = time.process_time() + 0.6\nwhile time.process_time() < until: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", parent]) as process, ProcessTree(process.pid) as tree:
        process.wait()
        assert tree.cpu_s() > 0.3
        assert tree.peak_bytes > 5_000_000


def test_phases_of_a_pipeline_end_with_the_lines_that_it_prints(tmp_path):
    from benchmarks import demo

    code = """
import time
for line in ("dataset: 4 rows", "extracted 2 of 4 images, 3 images/s", "cache: 4 rows computed", "cache: a face",
             "run 1/2: A", "run 2/2: B", "reference: C", "note: D"):
    time.sleep(0.05)
    print(line)
time.sleep(0.2)
print("report: written")
"""
    measured = demo.measure([sys.executable, "-c", code])
    seconds = {phase: each["wall_s"] for phase, each in measured["phases"].items()}
    assert list(seconds) == ["drawing", "extraction", "training", "references", "report"]
    assert sum(seconds.values()) == pytest.approx(measured["wall_s"], abs=0.03)
    assert seconds["extraction"] >= 0.14
    assert seconds["report"] >= 0.24
    assert 0.04 <= measured["first_block_s"] < seconds["extraction"]
    with pytest.raises(RuntimeError, match="ended with 3:\nno such pipeline"):
        demo.measure([sys.executable, "-c", "print('no such pipeline'); raise SystemExit(3)"])


def test_the_median_of_each_phase_is_its_own():
    from benchmarks import demo

    def run(drawing, report):
        phases = {
            name: {"wall_s": value, "cpu_s": 2 * value}
            for name, value in {"drawing": drawing, "report": report}.items()
        }
        return {"wall_s": drawing + report, "cpu_s": 2 * (drawing + report), "phases": phases, "first_block_s": None}

    found = demo.summary([run(1, 9), run(2, 3), run(6, 5)])
    assert found["phases"] == {"drawing": {"wall_s": 2, "cpu_s": 4}, "report": {"wall_s": 5, "cpu_s": 10}}
    assert (found["wall_s"], found["runs"], found["first_block_s"]) == (10, 3, None)


def test_scores_of_the_documentation_are_those_of_a_report(tmp_path, monkeypatch, blank_figures):
    from benchmarks import documented, report
    from emofuse.report import write_report
    from emofuse.results import list_runs

    monkeypatch.syspath_prepend(str(report.TESTS / "report"))
    report.make_runs(tmp_path / "runs", 2)
    write_report(tmp_path / "runs", tmp_path / "report")
    found = documented.read_report(tmp_path / "report")
    for each, run in zip(found["configurations"], list_runs(tmp_path / "runs"), strict=True):
        assert each["name"] == run.name
        assert each["accuracy"]["mean"] == pytest.approx(run.metrics["test"]["accuracy"], abs=1e-4)
        assert each["accuracy"]["low"] < each["accuracy"]["mean"] < each["accuracy"]["high"]
    (difference,) = found["differences"]
    assert (difference["name"], difference["against"]) == ("configuration 2", "configuration 1")


def test_the_folds_of_the_documentation_are_outer_folds_of_kernel_ridge():
    from benchmarks import documented

    spec = documented.outer_folds(Path("nowhere"))
    assert [run.head.kind for run in spec.runs] == ["kernel_ridge"] * 3
    assert [len(run.features.streams) for run in spec.runs] == [1, 1, 5]
    assert (spec.test.folds, spec.baseline, spec.references) == (5, "Action units", "off")


def test_the_worth_of_streams_is_measured_on_the_demo_with_other_numbers_of_pictures():
    from benchmarks import worth

    spec = worth.demo_of(99, worth.STREAMS)
    assert spec.dataset.images == 99
    assert {stream.name for stream in spec.cache.streams} == set(worth.STREAMS)


def test_equals_that_differ_in_nothing_are_seldom_called_different():
    from benchmarks import equals

    answers = equals.draw_answers(np.random.default_rng(0), repeats=3, deviation=2.0)
    assert answers.shape == (6, equals.ROWS)
    assert set(np.unique(answers)) == {0, 1}
    assert 0 <= equals.share_called_different(2, 0.0, pairs=40) <= 0.2


def test_distances_are_the_smallest_cosine_and_the_largest_difference():
    from benchmarks import precision

    expected = np.array([[3.0, 4.0], [0.0, 10.0]])
    assert precision.distance(expected, expected) == {"smallest_cosine": 1.0, "largest_difference": 0.0}
    found = precision.distance(np.array([[4.0, 3.0], [0.0, 9.0]]), expected)
    assert found == {"smallest_cosine": 0.96, "largest_difference": 0.1}


class BrightCorner:
    """A finder that takes the corner with light for the top left of a face, and sees none in the dark."""

    def detect(self, picture):
        corners = [picture[0, 0], picture[0, -1], picture[-1, -1], picture[-1, 0]]
        lit = [turns for turns, corner in enumerate(corners) if corner.any()]
        return SimpleNamespace(turns=lit[0]) if lit else None

    def close(self):
        pass


def test_faces_that_are_found_and_turns_that_are_right_are_counted(monkeypatch):
    from benchmarks import detection

    monkeypatch.setattr(detection, "make_face_detector", lambda spec, needs: BrightCorner())
    face, dark = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    face[0, 0] = 255
    assert detection.share_found(None, [face, dark, dark, dark]) == 0.25
    assert detection.share_of_right_turns(None, [face, dark]) == 0.5


def test_small_pictures_are_those_in_which_every_rater_saw_a_face(tmp_path):
    from benchmarks import detection

    (tmp_path / "faces48").mkdir()
    votes = np.zeros((6, 10), np.uint8)
    votes[:4, detection.NO_FACE] = 1
    pictures = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((6, 48, 48), np.uint8)
    np.savez(tmp_path / "faces48" / "fer2013_part.npz", image=pictures, ferplus_votes=votes)
    found = detection.small_pictures(tmp_path, 5)
    assert sorted(int(picture[0, 0, 0]) for picture in found) == [4, 5]
    assert found[0].shape == (48, 48, 3)


def test_heads_that_a_result_lacks_are_named_the_cheapest_first(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"models": [{"name": "linear"}, {"name": "logistic"}]}))
    lacking = heads_accuracy.missing_heads(path)
    assert {"linear", "logistic"}.isdisjoint(lacking)
    assert len(lacking) == len({**heads_accuracy.HEADS, **heads_accuracy.OF_VOTES}) - 2
    assert lacking.index("kernel_ridge") < lacking.index("concat, the paper's defaults")
    assert "logistic" in lacking[-1]


def test_the_readme_of_the_benchmarks_names_every_script():
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert path.stem == "__init__" or f"`{path.stem}`" in text, f"{path.name} is not in benchmarks/README.md"


def test_the_scale_is_measured_step_by_step(tmp_path):
    from benchmarks import scale

    measured = scale.measure(600, tmp_path, build_rows=1000)
    assert measured["block_rows"] == 256
    assert measured["files_in_the_fullest_folder"] == 4  # three chunks and the array's metadata
    assert list(measured["steps"]) == list(scale.STEPS)
    assert all(step["peak_mb"] > 50 for step in measured["steps"].values())
    assert measured["steps"]["build_null"]["seconds"] > measured["steps"]["imports"]["seconds"]
    assert list(tmp_path.glob("600.zarr")) == []


def test_the_read_speed_is_measured_on_the_same_numbers(tmp_path):
    from benchmarks import read_speed

    found = read_speed.measure(600, 32, 2, tmp_path)
    assert found["stored_mb"] == 0
    for answers in found["answers"].values():
        assert "emofuse" in answers
        assert all(numbers["best_gb_per_s"] >= numbers["gb_per_s"] > 0 for numbers in answers.values())
        assert next(iter(answers.values()))["times_the_first"] == 1


def test_a_reader_that_gives_other_numbers_is_not_timed():
    from benchmarks import read_speed

    readers = {"plain": lambda: np.zeros(3), "wrong": lambda: np.ones(3)}
    with pytest.raises(RuntimeError, match="wrong read other numbers"):
        read_speed.compare(readers, 24, 1)


def repeats(name, scores, streams=("lbp",)):
    """Runs of one configuration on random splits of 840 rows, with these test scores."""
    rows = {"train": {"rows": 588}, "val": {"rows": 168}, "test": {"rows": 84}}
    return [
        SimpleNamespace(
            name=name,
            spec={"split": {"seed": seed}, "features": {"streams": list(streams)}},
            rows=rows,
            metrics={split: {"accuracy": score, "macro": {"f1": score}} for split in ("val", "test")},
            refit=[],
        )
        for seed, score in enumerate(scores)
    ]


def test_overlapping_splits_of_the_faces_are_no_independent_repeats():
    """The stored differences of 10 splits: their t of 2.005 as independent values is 1.286 as overlapping splits."""
    gains = [0.0456, 0.0408, 0.0603, -0.0141, 0.0373, 0.0262, -0.0282, -0.0167, 0.0411, 0.0036]
    name = views.NAMES[0]
    records = repeats(name, [0.5] * 10) + [
        run for count in (2, 5) for run in repeats(views.named(name, count), [0.5 + gain for gain in gains])
    ]
    found = views.describe(name, tuple(records))["difference_to_one_view"]["5"]
    assert (found["mean"], found["t"]) == (0.0196, 1.286)
    assert found["p"] == pytest.approx(0.2305, abs=1e-3)
    assert found["low"] < 0 < found["high"]


def test_the_fusion_of_the_faces_is_compared_with_every_single_stream():
    fused, single = [0.60, 0.55, 0.66, 0.58, 0.63], [0.59, 0.47, 0.56, 0.54, 0.51]
    records = (*repeats("fused", fused), *repeats("one", single), *repeats("other", fused[::-1]))
    first, second = faces.compare_with_all(records, "fused", ["one", "other"], "macro_f1")
    assert (first["against"], second["against"]) == ("one", "other")
    assert first["each"] == [0.01, 0.08, 0.1, 0.04, 0.12]
    assert (first["p_holm"], second["p_holm"]) == (pytest.approx(2 * first["p"]), 1.0)
    described = faces.describe("fused", list(records[:5]))
    assert described["test_macro_f1"]["low"] < described["test_macro_f1"]["mean"] < described["test_macro_f1"]["high"]
    assert set(described["val_macro_f1"]) == {"mean", "sd", "each"}


def test_accuracies_on_the_same_test_rows_have_an_interval_over_images():
    from benchmarks.heads_accuracy import describe

    of_split = {"accuracy": 0.8, "macro_f1": 0.7, "accuracy_without_copies": 0.75, "rows": 400.0}
    scores = [{**of_split, "seconds": seconds} for seconds in (1.0, 2.0, 9.0)]
    row = describe("model", scores, overlapping=False)
    assert row["accuracy"] == {"mean": 0.8, "each": [0.8] * 3, "interval": [0.7608, 0.8392]}
    assert (row["cpu_s_a_split"], row["accuracy_without_copies"]) == (2.0, 0.75)
    assert describe("model", scores, overlapping=True)["accuracy"]["interval"] == [0.8, 0.8]


def test_votes_are_unpacked_with_clear_majorities_alone(tmp_path):
    from benchmarks.fer2013 import write_folder

    votes = np.zeros((4, 10), np.uint8)
    votes[0, 1], votes[1, :2], votes[2, 8], votes[3, 3] = 9, 5, 9, 6  # joy, a tie, unknown, sadness
    archive = tmp_path / "part.npz"
    image = np.arange(4 * 48 * 48, dtype=np.uint32).reshape(4, 48, 48).astype(np.uint8)
    np.savez(archive, image=image, row=np.arange(4), usage=np.array([0, 0, 1, 1]), ferplus_votes=votes)
    assert write_folder(archive, tmp_path / "data") == 2
    lines = (tmp_path / "data" / "labels.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["00000.png", "happiness", "train"],
        ["00003.png", "sadness", "test"],
    ]
    assert len(list((tmp_path / "data" / "images").glob("*.png"))) == 2


def test_speech_is_chosen_on_validation_actors_and_tested_on_others():
    labels = np.tile(np.arange(4), 60)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(240, 6)).astype(np.float32) + np.eye(4, 6, dtype=np.float32)[labels]
    stream = SimpleNamespace(read=lambda view, dtype: (features, None))
    cache = SimpleNamespace(streams={"voice": stream}, labels=labels)
    folds = [np.split(np.roll(np.arange(240), 40 * fold), [160, 200]) for fold in range(6)]
    for name, (make, settings) in speech.REFERENCES.items():
        scores = list(speech.score_reference(cache, ("voice",), make, settings, iter(folds)))
        assert [score["ratio"] for score in scores] == [0.2] * 6
        row = speech.describe("Voice", name, ("voice",), scores)
        assert 0.4 < row["uar"]["interval"][0] < row["uar"]["mean"] < row["uar"]["interval"][1] < 0.9
        assert len(row["accuracy"]["each"]) == 6


def test_validation_rows_of_a_second_training_count_once_in_the_ratio_of_test_and_training_rows():
    rows = {"train": {"rows": 672}, "val": {"rows": 135}, "test": {"rows": 168}}  # train holds val already
    record = SimpleNamespace(rows=rows, refit=[{"rows": 672}])
    assert faces.size_ratio([record, record]) == 0.25


def test_an_svm_on_the_same_features_is_compared_split_by_split():
    ours, theirs = {"a": 0.6, "b": 0.7, "c": 0.5}, {"c": 0.45, "b": 0.65, "a": 0.5}
    compared = cross_validated.difference(ours, theirs, 0.25)
    assert compared["mean"] == pytest.approx(0.0667, abs=1e-4)
    assert compared["low"] < 0 < compared["high"]


# ------------------------------------------------------------------------------------------------------- extraction


def test_extraction_is_measured_against_scripts_that_take_turns_with_it(tmp_path, monkeypatch):
    make, checked = extraction.make_contenders, []

    def only_light_faces_run(work):
        return {name: run if "light_faces" in name else lambda: time.sleep(0.1) for name, run in make(work).items()}

    def check(work):
        with_faces = np.load(work / "faces.npy")
        streams = open_cache(work / "light.zarr").streams
        checked.append((len(with_faces), {name: stream.counts()["ok"] for name, stream in streams.items()}))

    monkeypatch.setattr(extraction, "save_random_resnet", lambda path, classes: path)
    monkeypatch.setattr(extraction, "make_contenders", only_light_faces_run)
    monkeypatch.setattr(extraction, "check_same_features", check)
    path = extraction.measure(extraction.SMOKE, tmp_path / "results", with_steps=False)
    light = ("lbp", "landmarks", "action_units", "hog", "head_pose")
    assert checked == [(8, dict.fromkeys(light, 8))]
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["goals"] == {"six_passes_over_build": 3.0, "face_images_per_s_a_core": 100}
    assert result["images_per_s_median"].keys() >= {"six_passes", "six_streams_float32", "light_faces", "face_streams"}
    [seconds] = result["each_run_s"]
    expected = seconds["six_passes"] / seconds["six_streams_float32"]
    assert result["six_passes_over_build"]["six_streams_float32"] == pytest.approx(expected, rel=0.1)
    expected = seconds["plain_script_of_light_faces"] / seconds["light_faces"]
    assert result["plain_script_over_build_of_light_faces"] == pytest.approx(expected, rel=0.05)
    assert result["face_images_per_s_a_core"] > 0
