"""Kinds found in entry points of installed packages, and the errors of those that cannot be used."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Literal

import pytest

from emofuse import registry
from emofuse.errors import PluginError
from emofuse.registry import FAMILIES, Family
from emofuse.specs import CustomStreamSpec, FeaturesSpec, LbpSpec, StreamSpecBase
from emofuse.specs.kinds import kind_of_class

GROUP = "emofuse.streams"


class FarSpec(CustomStreamSpec):
    kind: Literal["far"] = "far"


NO_KIND = 7


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=f"{__name__}:{value}", group=GROUP)


@pytest.fixture
def family(monkeypatch):
    """A family of its own, whose entry points are those that it is given."""

    def make(*entries: EntryPoint) -> Family:
        monkeypatch.setattr(registry, "entry_points", lambda group: entries)
        monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value.partition(":")[2]])
        made = Family("stream", GROUP, lambda value: kind_of_class(value, StreamSpecBase), lambda: [LbpSpec])
        FAMILIES.remove(made)
        return made

    return make


def test_a_kind_of_an_installed_package_is_found_by_its_entry_point(family):
    kinds = family(entry("far", "FarSpec"))
    assert kinds.names() == ["far", "lbp"]
    assert kinds.find("far") is FarSpec
    assert kinds.find("nowhere") is None
    assert set(kinds.all()) == {"far", "lbp"}


def test_an_entry_point_with_a_kind_of_the_package_is_an_error(family):
    with pytest.raises(PluginError, match="the kind 'lbp' of a stream is also that of emofuse"):
        family(entry("lbp", "FarSpec")).names()


def test_an_entry_point_that_cannot_be_loaded_or_is_another_kind_is_an_error(family):
    with pytest.raises(PluginError, match="kind 'gone' of a stream cannot be loaded, KeyError: 'Gone'"):
        family(entry("gone", "Gone")).find("gone")
    with pytest.raises(PluginError, match="expected a stream of kind 'seven'"):
        family(entry("seven", "NO_KIND")).find("seven")


def test_features_are_recorded_as_before_kinds_had_variants():
    """The digests of all former runs depend on it."""
    assert FeaturesSpec(streams=("lbp", "x"), lbp_bins=128).model_dump(mode="json") == {
        "streams": ["lbp", "x"],
        "lbp_bins": 128,
        "action_units": 25,
        "neutral_label": None,
    }
    former = {"streams": ["lbp"], "lbp_bins": 512, "action_units": 15, "neutral_label": "calm"}
    assert FeaturesSpec.model_validate(former).model_dump(mode="json") == former
