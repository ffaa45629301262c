"""Frozen, validated specifications of everything that a user can ask for, and their digests.

A spec is a small pydantic model: immutable, strict about unknown keys, tagged by `kind` where there is a choice. The
YAML files of `cache_specs/` and `pipelines/` are read into specs; nothing else in emofuse parses YAML. The `digest()`
of everything that changes the bytes identifies a cached array or a trained run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emofuse.specs.base import Spec, canonical_json, digest
from emofuse.specs.caches import AugmentSpec, CacheSpec, ClipSpec, DecodeSpec, FaceSpec, SoundAugmentSpec
from emofuse.specs.datasets import (
    CustomDatasetSpec,
    DatasetSpec,
    HoldoutSplit,
    OfficialSplit,
    OuterFoldsSplit,
    OuterTestSpec,
    SplitSpec,
    StratifiedSplit,
)
from emofuse.specs.factors import Factors, Range
from emofuse.specs.files import (
    bundled_specs,
    is_cache_spec,
    parse_spec,
    read_cache_spec,
    read_label_map,
    read_pipeline_spec,
    read_sweep_spec,
)
from emofuse.specs.head_kinds import (
    EXACT_HEADS,
    AttentionHeadSpec,
    AveragedLogisticHeadSpec,
    ConcatHeadSpec,
    GatedHeadSpec,
    KernelRidgeHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    LogisticHeadSpec,
)
from emofuse.specs.heads import CustomHeadSpec, HeadSpec, NetworkHeadSpec
from emofuse.specs.label_maps import LabelMapSpec
from emofuse.specs.pipelines import PipelineSpec, RepeatSpec
from emofuse.specs.plugins import PluginFile, load_plugins
from emofuse.specs.reports import ReportSpec
from emofuse.specs.runs import EnsembleSpec, FeaturesSpec, FoldSpec, RunSpec
from emofuse.specs.streams import CustomStreamSpec, ImportedSpec, StreamSpec, StreamSpecBase, Variant
from emofuse.specs.sweeps import (
    BaseRun,
    CrossValidation,
    FinalSpec,
    GridSearch,
    HalvingSpec,
    RandomSearch,
    SweepSpec,
    TpeSearch,
)
from emofuse.specs.targets import ClassTarget, DistributionTarget, MultilabelTarget, RegressionTarget, TargetSpec
from emofuse.specs.train import TrainSpec
from emofuse.specs.weights import (
    FileWeights,
    HubWeights,
    Precision,
    RandomWeights,
    RegistryWeights,
    WeightsSpec,
    is_random,
)

if TYPE_CHECKING:
    from emofuse.datasets.csv_table import CsvSpec
    from emofuse.datasets.demo_dataset import DemoSpec
    from emofuse.datasets.emoset import EmoSetSpec
    from emofuse.datasets.folder import FolderSpec
    from emofuse.streams.action_units import ActionUnitsSpec
    from emofuse.streams.backbones import BackboneSpec, Places365Spec
    from emofuse.streams.landmarks import LandmarksSpec
    from emofuse.streams.objects import ObjectsSpec
    from emofuse.streams.texture import LbpSpec

# Specs in the files of their kinds, in layers above this package: they are imported when their names are used.
_WITH_THEIR_KIND = {
    "ActionUnitsSpec": "emofuse.streams.action_units",
    "BackboneSpec": "emofuse.streams.backbones",
    "CsvSpec": "emofuse.datasets.csv_table",
    "DemoSpec": "emofuse.datasets.demo_dataset",
    "EmoSetSpec": "emofuse.datasets.emoset",
    "FolderSpec": "emofuse.datasets.folder",
    "LandmarksSpec": "emofuse.streams.landmarks",
    "LbpSpec": "emofuse.streams.texture",
    "ObjectsSpec": "emofuse.streams.objects",
    "Places365Spec": "emofuse.streams.backbones",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_THEIR_KIND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WITH_THEIR_KIND[name]), name)


__all__ = [
    "EXACT_HEADS",
    "ActionUnitsSpec",
    "AttentionHeadSpec",
    "AugmentSpec",
    "AveragedLogisticHeadSpec",
    "BackboneSpec",
    "BaseRun",
    "CacheSpec",
    "ClassTarget",
    "ClipSpec",
    "ConcatHeadSpec",
    "CrossValidation",
    "CsvSpec",
    "CustomDatasetSpec",
    "CustomHeadSpec",
    "CustomStreamSpec",
    "DatasetSpec",
    "DecodeSpec",
    "DemoSpec",
    "DistributionTarget",
    "EmoSetSpec",
    "EnsembleSpec",
    "FaceSpec",
    "Factors",
    "FeaturesSpec",
    "FileWeights",
    "FinalSpec",
    "FoldSpec",
    "FolderSpec",
    "GatedHeadSpec",
    "GridSearch",
    "HalvingSpec",
    "HeadSpec",
    "HoldoutSplit",
    "HubWeights",
    "ImportedSpec",
    "KernelRidgeHeadSpec",
    "LabelMapSpec",
    "LandmarksSpec",
    "LateHeadSpec",
    "LbpSpec",
    "LinearHeadSpec",
    "LogisticHeadSpec",
    "MultilabelTarget",
    "NetworkHeadSpec",
    "ObjectsSpec",
    "OfficialSplit",
    "OuterFoldsSplit",
    "OuterTestSpec",
    "PipelineSpec",
    "Places365Spec",
    "PluginFile",
    "Precision",
    "RandomSearch",
    "RandomWeights",
    "Range",
    "RegistryWeights",
    "RegressionTarget",
    "RepeatSpec",
    "ReportSpec",
    "RunSpec",
    "SoundAugmentSpec",
    "Spec",
    "SplitSpec",
    "StratifiedSplit",
    "StreamSpec",
    "StreamSpecBase",
    "SweepSpec",
    "TargetSpec",
    "TpeSearch",
    "TrainSpec",
    "Variant",
    "WeightsSpec",
    "bundled_specs",
    "canonical_json",
    "digest",
    "is_cache_spec",
    "is_random",
    "load_plugins",
    "parse_spec",
    "read_cache_spec",
    "read_label_map",
    "read_pipeline_spec",
    "read_sweep_spec",
]
