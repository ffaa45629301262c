"""Frozen, validated specifications of everything a user can ask for, and their digests.

A spec is a small pydantic model: immutable, strict about unknown keys, tagged by `kind` where there is a choice. YAML
files in `cache_specs/` and `pipelines/` are read into them; nothing else in emofuse parses YAML. `digest()` of what
changes the bytes is the identity of a cached array or a trained run.
"""

from emofuse.specs.base import Spec, canonical_json, digest
from emofuse.specs.caches import (
    ActionUnitsSpec,
    BackboneSpec,
    CacheSpec,
    CustomStreamSpec,
    DecodeSpec,
    FaceSpec,
    FileWeights,
    LandmarksSpec,
    LbpSpec,
    ObjectsSpec,
    Places365Spec,
    RandomWeights,
    RegistryWeights,
    StreamSpec,
    StreamSpecBase,
    WeightsSpec,
    is_random,
)
from emofuse.specs.datasets import (
    CsvSpec,
    DatasetSpec,
    DemoSpec,
    EmoSetSpec,
    FolderSpec,
    OfficialSplit,
    SplitSpec,
    StratifiedSplit,
)
from emofuse.specs.files import bundled_specs, parse_spec, read_cache_spec, read_pipeline_spec
from emofuse.specs.pipelines import PipelineSpec, RepeatSpec
from emofuse.specs.runs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    FeaturesSpec,
    GatedHeadSpec,
    HeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    RunSpec,
    TrainSpec,
)

__all__ = [
    "ActionUnitsSpec",
    "AttentionHeadSpec",
    "BackboneSpec",
    "CacheSpec",
    "ConcatHeadSpec",
    "CsvSpec",
    "CustomStreamSpec",
    "DatasetSpec",
    "DecodeSpec",
    "DemoSpec",
    "EmoSetSpec",
    "FaceSpec",
    "FeaturesSpec",
    "FileWeights",
    "FolderSpec",
    "GatedHeadSpec",
    "HeadSpec",
    "LandmarksSpec",
    "LateHeadSpec",
    "LbpSpec",
    "LinearHeadSpec",
    "ObjectsSpec",
    "OfficialSplit",
    "PipelineSpec",
    "Places365Spec",
    "RandomWeights",
    "RegistryWeights",
    "RepeatSpec",
    "RunSpec",
    "Spec",
    "SplitSpec",
    "StratifiedSplit",
    "StreamSpec",
    "StreamSpecBase",
    "TrainSpec",
    "WeightsSpec",
    "bundled_specs",
    "canonical_json",
    "digest",
    "is_random",
    "parse_spec",
    "read_cache_spec",
    "read_pipeline_spec",
]
