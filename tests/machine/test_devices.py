"""Which device a name stands for."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest
import torch

from emofuse.errors import DeviceError
from emofuse.machine.devices import resolve_device


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two CUDA devices, of which the second is current."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:", "cuda:x", "cuda:-1", ""])
def test_an_unknown_name_is_refused(device):
    with pytest.raises(DeviceError, match=f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N"):
        resolve_device(device)


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_gpu_is_the_current_one_or_that_of_the_number(two_gpus, device, expected):
    assert resolve_device(device) == expected


def test_a_gpu_that_is_not_there_is_an_error_that_names_the_machine(two_gpus):
    where = re.escape(platform.node())
    with pytest.raises(DeviceError, match=f"'cuda:2' was asked for, but torch on {where} sees no such CUDA device"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_no_gpu_is_an_error_that_says_which_device_to_use(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=rf"device '{device}' was asked for.*use cpu or auto \(--device cpu\)"):
        resolve_device(device)


def test_the_cpu_is_found_without_torch():
    code = (
        "import sys; from emofuse.machine.devices import resolve_device; "
        "resolve_device('cpu'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
