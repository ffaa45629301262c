"""State dicts are read from every format that matters, and nothing but state dicts."""

from __future__ import annotations

import os
import zipfile
from collections import OrderedDict

import pytest
import torch
from python2_checkpoint import write_python2_checkpoint
from safetensors.torch import save_file
from torchvision import models

from emofuse.errors import WeightsError
from emofuse.weights import load_checkpoint

STATE = OrderedDict(weight=torch.arange(6.0).reshape(2, 3), bias=torch.tensor([1.5, -2.0]))


def same(state, other=STATE):
    return list(state) == list(other) and all(torch.equal(state[name], other[name]) for name in other)


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch(tmp_path, zipped):
    torch.save(STATE, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert same(load_checkpoint(tmp_path / "x.pth"))


def test_safetensors(tmp_path):
    save_file(dict(STATE), tmp_path / "x.safetensors")
    assert same({name: load_checkpoint(tmp_path / "x.safetensors")[name] for name in STATE})


def test_a_training_checkpoint_is_unwrapped_and_data_parallel_names_are_undone(tmp_path):
    wrapped = {"epoch": 3, "arch": "net", "state_dict": OrderedDict((f"module.{k}", v) for k, v in STATE.items())}
    torch.save(wrapped, tmp_path / "x.pth.tar")
    assert same(load_checkpoint(tmp_path / "x.pth.tar"))


def test_versions_of_modules_travel_with_the_state(tmp_path):
    network = models.mnasnet0_5()
    torch.save(network.state_dict(), tmp_path / "x.pth")
    network.load_state_dict(load_checkpoint(tmp_path / "x.pth"))


@pytest.mark.parametrize("arch", ["resnet50", "r\xe9sn\xe9t"])
def test_a_checkpoint_of_python_2(tmp_path, arch):
    old = {
        "epoch": 90,
        "arch": arch,
        "best_prec1": 54.7,
        "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in STATE.items()),
    }
    write_python2_checkpoint(tmp_path / "old.pth.tar", old)
    assert same(load_checkpoint(tmp_path / "old.pth.tar"))


class Payload:
    def __reduce__(self):
        return os.system, ("echo code ran > ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_code_in_it_is_refused_unrun(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "extra": Payload()}, "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"evil.pth was refused: only tensors.*found \w+\.system.*torch\.save\("):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_python_2_with_code_in_it_is_refused_unrun(tmp_path, monkeypatch):
    """Its bytes that are no ASCII have it read a second time."""
    monkeypatch.chdir(tmp_path)
    write_python2_checkpoint(tmp_path / "evil.pth", {"arch": "r\xe9sn\xe9t", "extra": Payload(), "state_dict": STATE})
    with pytest.raises(WeightsError, match=r"evil\.pth was refused: only tensors.*found \w+\.system"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(torch.nn.LSTM(2, 2), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"was refused: only tensors .*found torch.nn.*LSTM"):
        load_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file(tmp_path, zipped):
    whole = tmp_path / "whole.pth"
    torch.save({"weight": torch.zeros(1000)}, whole, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "x.pth"
    for share in (0.02, 0.5, 0.99):
        path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        with pytest.raises(WeightsError, match=r"x\.pth (is not a complete torch checkpoint|was refused)"):
            load_checkpoint(path)


def test_a_truncated_safetensors_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(dict(STATE), path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="is not a complete safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"weight": 3}, {"state_dict": [1]}, {"model": {"weight": torch.zeros(1)}}]
)
def test_a_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="holds no state dict: expected names of parameters with tensors"):
        load_checkpoint(tmp_path / "x.pth")


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(WeightsError, match=r"no checkpoint at .*gone.pth"):
        load_checkpoint(tmp_path / "gone.pth")
    path = tmp_path / "x.pth"
    path.write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="is a web page"):
        load_checkpoint(path)
    path.write_bytes(b"just some text\n" * 50)
    with pytest.raises(WeightsError, match=r"x.pth (is not a complete torch checkpoint|was refused)"):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "another archive")
    with pytest.raises(WeightsError, match="is not a complete torch checkpoint"):
        load_checkpoint(path)
