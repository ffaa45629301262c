"""Float32 products by the faster library stay float32 products, and what was set before is set again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from emofuse.heads import arithmetic
from emofuse.heads.arithmetic import fast_arithmetic, flushes_denormals, keeps_float32, multiplies_by_onednn

CPU = torch.device("cpu")


@pytest.fixture
def amd(monkeypatch):
    """A CPU of AMD, whatever this one is; oneDNN computes as it does here."""
    monkeypatch.setattr(arithmetic, "_is_of_amd", lambda: True)
    multiplies_by_onednn.cache_clear()
    yield
    multiplies_by_onednn.cache_clear()


@pytest.mark.parametrize("rows", [1, 64, 300])
def test_products_of_the_faster_library_are_those_of_float32(amd, rows):
    generator = torch.Generator().manual_seed(0)
    values, weights = torch.randn(rows, 700, generator=generator), torch.randn(200, 700, generator=generator)
    exact = values.double() @ weights.double().T
    with fast_arithmetic(CPU):
        alone, batched = values @ weights.T, torch.bmm(values.expand(3, -1, -1), weights.T.expand(3, -1, -1))
    size = (values.double().abs() @ weights.double().abs().T).max()
    assert (alone - exact).abs().max() < 2e-7 * size
    assert (batched - exact).abs().max() < 2e-7 * size


def test_a_library_that_rounds_to_bfloat16_is_noticed(monkeypatch):
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: product(a.bfloat16().float(), b.bfloat16().float()))
    assert not keeps_float32()


def test_processors_of_others_and_of_another_torch_keep_their_library(monkeypatch):
    for name, value in (("_is_of_amd", lambda: False), ("_setting", lambda: None)):
        with monkeypatch.context() as patch:
            patch.setattr(arithmetic, name, value)
            multiplies_by_onednn.cache_clear()
            assert not multiplies_by_onednn()
            with fast_arithmetic(CPU):
                assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    multiplies_by_onednn.cache_clear()


def test_what_was_set_before_is_set_again_when_the_last_user_is_done(amd, monkeypatch):
    setting = SimpleNamespace(fp32_precision="ieee")
    monkeypatch.setattr(arithmetic, "_setting", lambda: setting)
    monkeypatch.setattr(arithmetic, "keeps_float32", lambda: True)
    arithmetic._ONEDNN.__enter__()
    arithmetic._ONEDNN.__enter__()
    arithmetic._ONEDNN.__exit__()
    assert setting.fp32_precision == "bf16"
    arithmetic._ONEDNN.__exit__()
    assert setting.fp32_precision == "ieee"
    assert not flushes_denormals()
    with pytest.raises(TypeError), fast_arithmetic(CPU):
        torch.mm("no", "matrix")
    assert setting.fp32_precision == "ieee"
    assert not flushes_denormals()


def test_numbers_too_small_for_float32_count_as_zero_inside_alone():
    small = torch.full((40,), 1e-39)
    assert bool((small * 1.0 > 0).all())
    with fast_arithmetic(CPU):
        assert flushes_denormals()
        assert bool((small * 1.0 == 0).all())
    assert bool((small * 1.0 > 0).all())


def test_a_gpu_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _: pytest.fail("the CPU was set for a GPU"))
    with fast_arithmetic(torch.device("cuda")):
        pass
