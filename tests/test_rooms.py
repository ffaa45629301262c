"""The walls between the rooms: what an import may load."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

EXTRAS = {"av", "soxr", "timm", "open_clip", "transformers", "opensmile", "huggingface_hub", "onnx", "onnxruntime"}
EXTRAS |= {"mlflow", "wandb", "tensorboard"}
"""Libraries of extras for clips, sounds, networks and trackers, which are imported where they are used."""


def loaded_by(module: str) -> set[str]:
    """Top-level packages in a fresh interpreter after one import."""
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["emofuse.training", "emofuse.training.runs", "emofuse.heads", "emofuse.features"])
def test_the_training_room_loads_nothing_of_the_building_room(module):
    room = {"dask", "distributed", "mediapipe", "cv2", "ultralytics", "zarr", "polars"}
    assert not loaded_by(module) & (room | EXTRAS)


@pytest.mark.parametrize("module", ["emofuse", "emofuse.cli"])
def test_the_command_line_starts_without_heavy_imports(module):
    heavy = {"torch", "dask", "distributed", "mediapipe", "cv2", "ultralytics", "zarr", "polars", "matplotlib"}
    assert not loaded_by(module) & (heavy | EXTRAS)


@pytest.mark.parametrize("module", ["emofuse.streams", "emofuse.streams.speech", "emofuse.streams.backbones"])
def test_specs_of_streams_are_read_without_the_libraries_of_extras(module):
    assert not loaded_by(module) & EXTRAS


def test_the_cache_is_read_without_torch():
    assert not loaded_by("emofuse.cache.reader") & {"torch", "cv2", "mediapipe", "dask", "distributed"}
