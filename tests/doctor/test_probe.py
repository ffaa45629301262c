"""Looks in another process: answers, errors, crashes, silence."""

from __future__ import annotations

import numpy as np

from emofuse.doctor import probe
from emofuse.doctor.probe import ProbeReply, run_probes


def test_an_import_answers_with_its_version():
    assert run_probes(["import numpy"]) == {"import numpy": ProbeReply(np.__version__)}


def test_nothing_to_look_at_starts_nothing():
    assert run_probes([]) == {}


def test_a_package_that_is_not_there_is_a_problem_and_the_next_is_looked_at():
    answers = run_probes(["import no_such_package", "import numpy"])
    missing = answers["import no_such_package"]
    assert (missing.value, missing.problem) == (None, "ModuleNotFoundError: No module named 'no_such_package'")
    assert answers["import numpy"].value == np.__version__


def test_a_package_that_raises_is_a_problem_in_one_line(break_package):
    break_package("polars", "raise ImportError('libfoo.so:\\n  cannot open')")
    assert run_probes(["import polars"])["import polars"].problem == "ImportError: libfoo.so: cannot open"


def test_a_package_that_crashes_the_process_is_to_blame_and_no_other(break_package):
    break_package("cv2", "import os, sys; print('native trouble', file=sys.stderr, flush=True); os._exit(139)")
    answers = run_probes(["import json", "import cv2", "import numpy"])
    assert answers["import cv2"] == ProbeReply(None, "its process ended with status 139: native trouble")
    assert answers["import json"].problem == answers["import numpy"].problem == ""


def test_a_package_that_hangs_is_given_up(break_package, monkeypatch):
    monkeypatch.setattr(probe, "_TIMEOUT_S", 3)
    break_package("dask", "import time; time.sleep(600)")
    answers = run_probes(["import dask", "import json"])
    assert answers["import dask"] == ProbeReply(None, "no reply within 3 s")
    assert answers["import json"].problem == ""


def test_what_a_package_prints_is_no_answer(break_package):
    break_package("rich", "print('{\"value\": \"false\"}'); __version__ = '1.2'")
    assert run_probes(["import rich"])["import rich"] == ProbeReply("1.2")


def test_the_devices_that_torch_sees():
    import torch

    assert len(run_probes(["cuda"])["cuda"].value) == torch.cuda.device_count()


def test_bfloat16_is_measured_against_float32():
    replies = run_probes(["bfloat16", "products"])
    assert all(0.01 < reply.value < 100 for reply in replies.values())


def test_the_runtime_of_networks_is_measured_where_openvino_is_installed():
    reply = run_probes(["runtime"])["runtime"]
    assert reply.problem == ""
    assert (reply.value["auto"], reply.value["by_variable"]) == ("torch", True)  # in tests
    assert reply.value["openvino"] is None or 0.01 < reply.value["speed_up"] < 100


def test_the_codec_pipeline_is_zarr_s_setting():
    assert "Pipeline" in run_probes(["codec"])["codec"].value


def test_a_face_detector_is_started(face):
    detector = face["detector"]
    expected = {"face_mesh": "face_landmark.tflite", "landmarker": "face_landmarker"}[detector]
    assert expected in run_probes([f"face {detector}"])[f"face {detector}"].value


def test_a_landmarker_without_its_model_says_how_to_get_it():
    answer = run_probes(["face landmarker"])["face landmarker"]
    assert answer.problem.endswith("Get them: emofuse weights fetch face_landmarker")


def test_the_width_of_a_model_is_found_without_its_weights():
    widths = {"dim resnet50": 2048, "dim squeezenet1_1": 512, "dim vit_b_16": 768}
    assert {look: answer.value for look, answer in run_probes(list(widths)).items()} == widths


def test_a_model_that_torchvision_lacks_is_answered_with_its_nearest_name():
    answer = run_probes(["dim resnet5"])["dim resnet5"]
    assert answer.problem.endswith(
        "model: 'resnet5' is no classification model of torchvision, did you mean 'resnet50'?"
    )
