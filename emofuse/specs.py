"""Frozen, validated specifications of everything a user can ask for, and their digests.

A spec is a small pydantic model: immutable, strict about unknown keys, tagged by `kind` where there is a choice. YAML
files in `cache_specs/` and `pipelines/` are read into them; nothing else in emofuse parses YAML. `digest()` of what
changes the bytes is the identity of a cached array or a trained run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    SerializeAsAny,
    Tag,
    ValidationError,
    model_validator,
)

from emofuse.errors import SpecError


class Spec(BaseModel):
    """Base of all specs: immutable, and an unknown key is a fault, not a comment."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --------------------------------------------------------------------------------------------------------------------
# Datasets: which images, labels and splits
# --------------------------------------------------------------------------------------------------------------------


class OfficialSplit(Spec):
    """The split that the dataset itself defines."""

    kind: Literal["official"] = "official"


class StratifiedSplit(Spec):
    """A seeded random split that keeps the proportion of every label (the paper's is 70/20/10)."""

    kind: Literal["stratified"] = "stratified"
    train: float = Field(0.7, gt=0, lt=1)
    val: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, got {total:g}")
        return self


SplitSpec = Annotated[OfficialSplit | StratifiedSplit, Field(discriminator="kind")]


class EmoSetSpec(Spec):
    """EmoSet as released: `info.json`, `train.json`, `val.json`, `test.json`, `image/`, `annotation/`."""

    kind: Literal["emoset"] = "emoset"
    root: Path | None = None
    split: SplitSpec = OfficialSplit()


class FolderSpec(Spec):
    """`root/<label>/*.jpg`, or `root/<train|val|test>/<label>/*.jpg`."""

    kind: Literal["folder"] = "folder"
    root: Path | None = None
    split: SplitSpec = OfficialSplit()


class CsvSpec(Spec):
    """A table with a path column, a label column and, if there is one, a split column. Paths are relative to `root`."""

    kind: Literal["csv"] = "csv"
    root: Path | None = None
    table: Path = Path("labels.csv")
    path_column: str = "path"
    label_column: str = "label"
    split_column: str | None = None
    image_dir: Path = Path()
    split: SplitSpec = OfficialSplit()


class DemoSpec(Spec):
    """A generated dataset in EmoSet's layout for machines without data; see `emofuse.datasets.demo`."""

    kind: Literal["demo"] = "demo"
    root: Path | None = None
    images: int = Field(800, ge=16)
    seed: int = 0


DatasetSpec = Annotated[EmoSetSpec | FolderSpec | CsvSpec | DemoSpec, Field(discriminator="kind")]


# --------------------------------------------------------------------------------------------------------------------
# Weights
# --------------------------------------------------------------------------------------------------------------------


class RegistryWeights(Spec):
    """Weights by their name in the registry (`emofuse weights list`)."""

    kind: Literal["registry"] = "registry"
    name: str


class FileWeights(Spec):
    """Weights from a file of the user's. `sha256`, when given, is checked."""

    kind: Literal["file"] = "file"
    path: Path
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class RandomWeights(Spec):
    """Seeded random weights: for demonstrations and tests only; every report made from them says so."""

    kind: Literal["random"] = "random"
    seed: int = 0


WeightsSpec = Annotated[RegistryWeights | FileWeights | RandomWeights, Field(discriminator="kind")]


# --------------------------------------------------------------------------------------------------------------------
# Cache: what is extracted and stored
# --------------------------------------------------------------------------------------------------------------------

STREAM_NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_.-]*$"
StoredDtype = Literal["float16", "float32"]


class DecodeSpec(Spec):
    """How a file becomes RGB. Part of every stream's digest."""

    max_pixels: int = Field(100_000_000, ge=1, description="larger pictures are refused before they are decoded")


class FaceSpec(Spec):
    """How faces are found. Part of the digest of every stream that looks at a face.

    `face_mesh` is MediaPipe Face Mesh of 0.10.x, whose model travels in its wheel. `landmarker` is the Tasks face
    landmarker, which needs the weights `face_landmarker`. Both give the same 468 points.
    """

    detector: Literal["face_mesh", "landmarker"] = "face_mesh"
    min_confidence: float = Field(0.5, gt=0, lt=1)


class StreamSpecBase(Spec):
    """What all streams have: a name in the cache (the kind unless given) and a stored dtype.

    `version` is raised whenever the stream's code gives other bytes for the same spec; it is part of the digest.
    """

    version: ClassVar[int] = 1
    needs_face: ClassVar[bool] = False

    kind: str
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    dtype: Literal["float16", "float32"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _fill_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": cls._default_name(data)}
        return data

    @classmethod
    def _default_name(cls, data: Mapping[str, Any]) -> str:
        return str(cls.model_fields["kind"].default)


class LbpSpec(StreamSpecBase):
    """Local binary patterns of the face region: 256 bins at radius 1 and 256 at radius 2, 512 stored.

    The face region is the square box around the landmarks, resized to `region_px`. Without a face the whole image
    takes its place (`whole_image`, flagged in the cache) or the row has no LBP (`no_detection`).
    """

    needs_face: ClassVar[bool] = True
    kind: Literal["lbp"] = "lbp"
    region_px: int = Field(128, ge=8)
    without_face: Literal["whole_image", "no_detection"] = "no_detection"


class LandmarksSpec(StreamSpecBase):
    """468 aligned face landmarks, 1404 values."""

    needs_face: ClassVar[bool] = True
    kind: Literal["landmarks"] = "landmarks"


class ActionUnitsSpec(StreamSpecBase):
    """30 raw geometric measurements of facial action units."""

    needs_face: ClassVar[bool] = True
    kind: Literal["action_units"] = "action_units"


class BackboneSpec(StreamSpecBase):
    """Pooled features of a torchvision classification model, with that model's own resize, crop and normalisation."""

    kind: Literal["backbone"] = "backbone"
    model: str
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    dtype: Literal["float16", "float32"] = "float16"

    @classmethod
    def _default_name(cls, data: Mapping[str, Any]) -> str:
        return str(data.get("model", "backbone"))


class Places365Spec(StreamSpecBase):
    """2048 pooled features of the Places365 ResNet-50 (Zhou et al., TPAMI 2018)."""

    kind: Literal["places365"] = "places365"
    weights: WeightsSpec = RegistryWeights(name="places365")
    dtype: Literal["float16", "float32"] = "float16"


class ObjectsSpec(StreamSpecBase):
    """The five most confident YOLOv5 objects, six values each: centre, size, class probability, confidence."""

    kind: Literal["objects"] = "objects"
    model: Literal["yolov5n", "yolov5s"] = "yolov5n"
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    image_px: int = Field(640, ge=32, multiple_of=32)
    min_confidence: float = Field(0.25, gt=0, lt=1)


class CustomStreamSpec(StreamSpecBase):
    """Base class of a stream of one's own, used from Python only (YAML names no code).

    Subclass it with a `kind`, its parameters, and `make(device)`; raise `version` whenever the code gives other bytes.
    """

    def make(self, device: str) -> Any:
        """The stream itself, an object with the members of `emofuse.streams.base.Stream`."""
        raise NotImplementedError(f"{type(self).__name__}.make(device) must return the stream")


def _stream_tag(value: Any) -> str:
    if isinstance(value, CustomStreamSpec):
        return "custom"
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return str(kind)


StreamSpec = Annotated[
    Annotated[LbpSpec, Tag("lbp")]
    | Annotated[LandmarksSpec, Tag("landmarks")]
    | Annotated[ActionUnitsSpec, Tag("action_units")]
    | Annotated[BackboneSpec, Tag("backbone")]
    | Annotated[Places365Spec, Tag("places365")]
    | Annotated[ObjectsSpec, Tag("objects")]
    | Annotated[SerializeAsAny[InstanceOf[CustomStreamSpec]], Tag("custom")],
    Discriminator(_stream_tag),
]


class CacheSpec(Spec):
    """What is cached: the streams, how images are decoded and faces found, and how many rows make a block."""

    name: str = "cache"
    block_rows: int = Field(256, ge=1)
    views: Literal[1] = 1
    decode: DecodeSpec = DecodeSpec()
    face: FaceSpec = FaceSpec()
    streams: tuple[StreamSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [stream.name for stream in self.streams]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stream names must differ, these are used twice: {', '.join(twice)}")
        return self


# --------------------------------------------------------------------------------------------------------------------
# Training: features, head, optimisation
# --------------------------------------------------------------------------------------------------------------------


class FeaturesSpec(Spec):
    """Which cached streams a run reads and what is derived from them when they are read."""

    streams: tuple[str, ...] = Field(min_length=1)
    lbp_bins: Literal[128, 256, 512] = 256
    action_units: Literal[15, 20, 25, 30] = 25
    neutral_label: str | None = Field(
        None, description="FAU baseline: mean and deviation of this label's training faces; else median and MAD of all"
    )

    @model_validator(mode="after")
    def _streams_are_unique(self) -> Self:
        if len(set(self.streams)) != len(self.streams):
            raise ValueError(f"a stream is named twice: {', '.join(self.streams)}")
        return self


class ConcatHeadSpec(Spec):
    """The paper's head: each stream projected and batch-normalised, concatenated, hidden layers with ReLU, softmax."""

    kind: Literal["concat"] = "concat"
    embed_dim: int = Field(512, ge=1)
    depth: int = Field(2, ge=0, le=8)
    width: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


HeadSpec = ConcatHeadSpec


class TrainSpec(Spec):
    """Optimisation. The defaults are the paper's: Adam, 1e-4, 100 epochs, batch 64, cross-entropy.

    The epoch kept is the best one on validation rows by `select`; `patience` epochs without a better one end the run.
    """

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    optimizer: Literal["adam", "adamw"] = "adam"
    select: Literal["macro_f1", "accuracy", "loss"] = "macro_f1"
    patience: int | None = Field(None, ge=1)
    seed: int = 0


class RunSpec(Spec):
    """One trained head: features, head, optimisation and split (`official` = the manifest's own).

    `name` is what tables call the configuration; it is no part of the digest.
    """

    name: str
    features: FeaturesSpec
    head: HeadSpec = ConcatHeadSpec()
    train: TrainSpec = TrainSpec()
    split: SplitSpec = OfficialSplit()


# --------------------------------------------------------------------------------------------------------------------
# Pipelines: dataset + cache + runs + report
# --------------------------------------------------------------------------------------------------------------------


class RepeatSpec(Spec):
    """Every run is trained once per seed and, if `split_seeds` is given, per stratified split of those seeds."""

    seeds: tuple[int, ...] = Field((0,), min_length=1)
    split_seeds: tuple[int, ...] = ()
    split: StratifiedSplit = StratifiedSplit()


class PipelineSpec(Spec):
    """The whole job: `emofuse run NAME` reads one of these from `pipelines/NAME.yaml`.

    `cache` names a file of `cache_specs/` (or is a cache spec itself). `defaults` fill what a run leaves out.
    """

    name: str
    title: str = ""
    dataset: DatasetSpec
    cache: CacheSpec
    runs: tuple[RunSpec, ...] = Field(min_length=1)
    repeat: RepeatSpec = RepeatSpec()
    baseline: str | None = Field(None, description="the run that others are compared with; the first unless given")

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        known = {stream.name for stream in self.cache.streams}
        names = [run.name for run in self.runs]
        problems = []
        for index, run in enumerate(self.runs):
            for stream in run.features.streams:
                if stream not in known:
                    problems.append(f"runs[{index}].features.streams: {stream!r} is not in the cache{_hint(stream, known)}")
        if len(set(names)) != len(names):
            problems.append("runs: two runs have the same name")
        if self.baseline is not None and self.baseline not in names:
            problems.append(f"baseline: {self.baseline!r} is not the name of a run{_hint(self.baseline, names)}")
        if problems:
            raise ValueError(" | ".join(problems))
        return self


# --------------------------------------------------------------------------------------------------------------------
# Digest and YAML
# --------------------------------------------------------------------------------------------------------------------


def canonical_json(value: Any) -> str:
    """JSON of plain data with sorted keys and no spaces: equal data gives equal text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of plain data or of a spec."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


SpecT = TypeVar("SpecT", bound=Spec)


def parse_spec(model: type[SpecT], data: Any, where: str) -> SpecT:
    """Validates plain data into a spec.

    Raises:
        SpecError: with every fault of the data, each with its place in it.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = error.errors()
        inner = [fault["loc"] for fault in faults if fault["type"] != "too_short"]
        # A tuple whose items are all faulty is also reported as too short: only the items' own faults are news.
        faults = [f for f in faults if f["type"] != "too_short" or all(loc[: len(f["loc"])] != f["loc"] for loc in inner)]
        problems = [_describe(dict(fault)) for fault in faults]
        raise SpecError(where, problems) from None


def read_cache_spec(name_or_path: str | Path) -> CacheSpec:
    """A cache spec by the name of a file in `cache_specs/` or by path.

    Raises:
        SpecError: no such file, no YAML, or faults in it.
    """
    path = _find_yaml("cache_specs", name_or_path)
    return parse_spec(CacheSpec, {"name": path.stem, **_load_yaml(path)}, str(path))


def read_pipeline_spec(name_or_path: str | Path) -> PipelineSpec:
    """A pipeline by the name of a file in `pipelines/` or by path; names of cache specs in it are resolved.

    In the file, `defaults` (features, head, train, split) are merged under every run.

    Raises:
        SpecError: no such file, no YAML, or faults in it.
    """
    path = _find_yaml("pipelines", name_or_path)
    data = {"name": path.stem, **_load_yaml(path)}
    defaults = data.pop("defaults", {})
    if isinstance(data.get("runs"), list) and isinstance(defaults, dict):
        data["runs"] = [_merge(defaults, run) for run in data["runs"]]
    if isinstance(data.get("cache"), str):
        beside = path.parent / data["cache"]
        data["cache"] = read_cache_spec(beside if beside.is_file() else data["cache"])
    return parse_spec(PipelineSpec, data, str(path))


def bundled_specs(folder: str) -> list[str]:
    """Names of the YAML files that travel with emofuse in `cache_specs` or `pipelines`."""
    return sorted(path.stem for path in _bundled_dir(folder).glob("*.yaml"))


def _bundled_dir(folder: str) -> Path:
    """`cache_specs/` or `pipelines/`: inside the installed wheel, or at the root of a checkout."""
    installed = Path(str(resources.files("emofuse"))) / folder
    return installed if installed.is_dir() else installed.parent.parent / folder


def _find_yaml(folder: str, name_or_path: str | Path) -> Path:
    given = Path(name_or_path)
    if given.is_file():
        return given
    bundled = _bundled_dir(folder) / f"{given}.yaml"
    if given.suffix == "" and bundled.is_file():
        return bundled
    names = bundled_specs(folder)
    raise SpecError(
        str(name_or_path), [f"no such file, and no {folder} of this name{_hint(str(given), names)} (there are: {', '.join(names)})"]
    )


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SpecError(str(path), [f"not valid YAML: {str(error).replace(chr(10), ' ')}"]) from None
    except UnicodeDecodeError:
        raise SpecError(str(path), ["not a text file in UTF-8"]) from None
    if not isinstance(data, dict):
        raise SpecError(str(path), [f"must be a mapping of keys to values, got {type(data).__name__}"])
    return data


def _merge(under: Mapping[str, Any], over: Any) -> Any:
    if not isinstance(over, Mapping):
        return over
    merged = dict(under)
    for key, value in over.items():
        both_maps = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_maps else value
    return merged


def _hint(word: str, known: Sequence[str] | set[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _describe(fault: dict[str, Any]) -> str:
    """One pydantic fault in emofuse's words: place, what was found, what is expected."""
    tags = {"lbp", "landmarks", "action_units", "backbone", "places365", "objects", "custom"}
    place = ""
    parts = list(fault["loc"])
    for index, part in enumerate(parts):
        if isinstance(part, int):
            place += f"[{part}]"
        elif not (part in tags and index > 0 and isinstance(parts[index - 1], int)):
            place += f".{part}" if place else str(part)
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            text = "unknown key"
        case "missing":
            text = "is missing"
        case "union_tag_invalid":
            expected = [tag.strip().strip("'") for tag in str(context["expected_tags"]).split(",")]
            expected = [tag for tag in expected if tag != "custom"]
            found = str(context["tag"])
            place = f"{place}.kind" if place else "kind"
            text = f"{found!r} is unknown{_hint(found, expected) or ', expected one of ' + ', '.join(expected)}"
        case "union_tag_not_found":
            place, text = (f"{place}.kind" if place else "kind"), "is missing"
        case "greater_than_equal":
            text = f"must be >= {context['ge']}, got {fault['input']!r}"
        case "greater_than":
            text = f"must be > {context['gt']}, got {fault['input']!r}"
        case "less_than":
            text = f"must be < {context['lt']}, got {fault['input']!r}"
        case "value_error":
            text = str(context["error"])
        case _:
            text = f"{fault['msg']}, got {fault['input']!r}"
    return f"{place}: {text}" if place else text
