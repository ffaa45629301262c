"""`compare` of a sweep: settings in names, checked before the search, and the final configurations that they mean."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_question import small_sweep

from emofuse.errors import SpecError
from emofuse.sweep.compared import check_compared, find_compared
from emofuse.sweep.configurations import StreamType

TYPES = {"signal": StreamType("backbone"), "noise": StreamType("backbone")}


def finals(*names, scored=True):
    return SimpleNamespace(items=[SimpleNamespace(name=name, records=("run",) * scored) for name in names])


def problems(**changes) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        check_compared(small_sweep(**changes), TYPES)
    return caught.value.problems


def test_settings_that_the_sweep_tries_are_known_in_any_order():
    compare = [["noise+signal", "signal"], ["batch_size=16, signal", "noise, learning_rate=0.001"]]
    check_compared(small_sweep(compare=compare), TYPES)


def test_settings_that_it_does_not_try_are_named_with_the_nearest():
    assert problems(compare=[["signals", "noise"], ["signal, batch_size=17", "noise"]]) == (
        "compare[0]: no configuration has 'signals', did you mean 'signal'?",
        "compare[1]: no configuration has 'batch_size=17', did you mean 'batch_size=16'?",
    )


def test_any_value_of_a_range_may_be_named():
    ranged = {
        "factors": {"streams": "all", "learning_rate": {"low": 1e-4, "high": 1e-1}},
        "search": {"kind": "random", "trials": 4},
    }
    check_compared(small_sweep(compare=[["signal, learning_rate=0.002", "noise"]], **ranged), TYPES)
    (problem,) = problems(compare=[["signal, rate=0.002", "noise"]], **ranged)
    assert problem.startswith("compare[0]: no configuration has 'rate=0.002'")


def test_the_best_final_configuration_with_the_settings_is_compared():
    ranked = finals("signal, batch_size=16", "signal+noise, batch_size=32", "noise, batch_size=16")
    spec = small_sweep(compare=[["noise+signal", "signal"], ["batch_size=32", "batch_size=16"]])
    assert find_compared(spec, ranked).pairs == [
        ("signal+noise, batch_size=32", "signal, batch_size=16"),
        ("signal+noise, batch_size=32", "signal, batch_size=16"),
    ]


def test_what_has_no_final_run_or_is_one_configuration_is_said_to():
    spec = small_sweep(compare=[["signal", "batch_size=16"], ["signal", "noise"]])
    compared = find_compared(spec, finals("signal, batch_size=16"))
    assert compared.pairs == []
    assert compared.notes == [
        "'signal' and 'batch_size=16' are not compared, because both mean signal, batch_size=16.",
        "'signal' and 'noise' are not compared, because no final run is of 'noise'.",
    ]
    diverged = find_compared(spec, finals("signal", "noise", scored=False))
    assert diverged.notes[1].endswith("because no final run is of 'signal' and 'noise'.")
