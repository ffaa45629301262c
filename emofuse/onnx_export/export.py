"""Write a model as an ONNX file. The file is kept only if onnxruntime gives what torch gives."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import emofuse
from emofuse.datasets.sources import Source
from emofuse.errors import ResultsError
from emofuse.media.libraries import import_library
from emofuse.onnx_export.backbone import PIXELS, PictureGraph
from emofuse.onnx_export.check import (
    BACKBONE_TOLERANCE,
    HEAD_TOLERANCE,
    OnnxModel,
    check_outputs,
    expected_outputs,
    generated_arrays,
)
from emofuse.onnx_export.graph import ModelGraph
from emofuse.onnx_export.samples import features_of, read_images
from emofuse.predict.models import ChosenModel, cache_spec_of, load_model
from emofuse.results import RunRecord
from emofuse.stores import replacing
from emofuse.training.trained import TrainedHead

OPSET = 17
_PURPOSE = "ONNX files"
_OUTPUTS = {"class": "probs", "distribution": "probs", "multilabel": "probs", "regression": "values"}


@dataclass(frozen=True)
class Exported:
    """A written and checked ONNX file.

    Attributes:
        path: the file.
        inputs: input -> what it holds, in words.
        output: the name of the output.
        difference: the largest difference of an output to that of torch, on all rows of the check.
        tolerance: the largest difference that was allowed, relative to the largest output above 1.
        rows: the number of rows of the check: generated ones, and those of samples.
        samples: how many of them are of given samples.
    """

    path: Path
    inputs: Mapping[str, str]
    output: str
    difference: float
    tolerance: float
    rows: int
    samples: int


def export_onnx(
    model: ChosenModel,
    path: Path,
    *,
    with_backbone: bool = False,
    samples: Sequence[Path | Source] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a model as ONNX, from the features of its streams or from the picture that its backbones see.

    Args:
        model: the run, or the runs that are averaged.
        path: the file to write.
        with_backbone: whether the backbones are part of the graph.
        samples: images on which the file is checked, beside generated rows.
        say: receives a line for each step.

    Raises:
        StreamError: onnx or onnxruntime is not installed.
        ResultsError: the model cannot be exported, or the file gives other outputs; no file is written then.
    """
    import_library("onnx", extra="onnx", purpose=_PURPOSE)
    import_library("onnxruntime", extra="onnx", purpose=_PURPOSE)
    trained = load_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        if with_backbone:
            exported = _export_pictures(model, trained, partial, samples, say)
        else:
            exported = _export_head(model, trained, partial, samples, say)
    return Exported(path, *exported)


def _export_head(
    model: ChosenModel, trained: TrainedHead, path: Path, samples: Sequence[Path | Source], say: Callable[[str], None]
) -> tuple[Any, ...]:
    graph = ModelGraph(trained).eval()
    output = _OUTPUTS[model.record.target_kind]
    checks = [("generated rows", arrays) for arrays in generated_arrays(model.record, trained, graph.inputs)]
    names = graph.input_names
    example = [_number(checks[-1][1][name]) for name in names]
    axes = {**graph.dynamic_axes, output: {0: "batch"}}
    _write(graph, example, path, _Form(names, output, axes, _metadata(model.record, model.records)))
    count = 0
    if samples:
        arrays = features_of(cache_spec_of(model), graph.inputs, samples)
        count = len(samples)
        checks.append(("the given samples", arrays))
    written, differences, rows = OnnxModel(path), [], 0
    for name, arrays in checks:
        expected = expected_outputs(trained, graph.inputs, arrays)
        differences.append(check_outputs(name, written.outputs(arrays), expected, HEAD_TOLERANCE))
        rows += len(expected)
    say(f"checked on {rows} rows ({count} of samples): largest difference {max(differences):.1g}")
    described = {}
    for each in graph.inputs:
        size = " x ".join(["batch", *(["time"] if each.is_sequence else []), *map(str, each.shape[each.is_sequence :])])
        described[each.names[0]] = f"features of stream {each.name} ({each.kind}) as extracted, float32 {size}"
        described[each.names[1]] = "whether each row has the stream, bool batch"
        if each.is_sequence:
            described[each.names[2]] = "whether each step is there, bool batch x time"
    return described, output, max(differences), HEAD_TOLERANCE, rows, count


def _export_pictures(
    model: ChosenModel, trained: TrainedHead, path: Path, samples: Sequence[Path | Source], say: Callable[[str], None]
) -> tuple[Any, ...]:
    graph = PictureGraph(trained, cache_spec_of(model)).eval()
    output = _OUTPUTS[model.record.target_kind]
    height, width = graph.size
    rng = np.random.default_rng(0)
    generated = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    axes = {PIXELS: {0: "batch"}, output: {0: "batch"}}
    metadata = {**_metadata(model.record, model.records), "region": graph.region}
    _write(graph, [torch.from_numpy(generated[:2])], path, _Form([PIXELS], output, axes, metadata))
    with torch.inference_mode():
        checks = [
            (name, pixels, graph(torch.from_numpy(pixels)).numpy())
            for name, pixels in (("generated pictures", generated), ("one generated picture", generated[:1]))
        ]
    if samples:  # against the extraction of a prediction, and not against the module that was traced
        spec = cache_spec_of(model)
        paths, pictures = read_images(spec, samples, graph.region)
        expected = expected_outputs(trained, graph.head.inputs, features_of(spec, graph.head.inputs, paths))
        checks.append(("the given samples", graph.cut(pictures), expected))
    written, differences, rows = OnnxModel(path), [], 0
    for name, pixels, expected in checks:
        differences.append(check_outputs(name, written.outputs({PIXELS: pixels}), expected, BACKBONE_TOLERANCE))
        rows += len(pixels)
    count = len(checks[-1][1]) if samples else 0
    say(f"checked on {rows} pictures ({count} of samples): largest difference {max(differences):.1g}")
    seen = "the aligned face" if graph.region == "face" else "the picture, resized and cut as the networks' preset does"
    described = {PIXELS: f"{seen}, uint8 RGB batch x {height} x {width} x 3"}
    return described, output, max(differences), BACKBONE_TOLERANCE, rows, count


@dataclass(frozen=True)
class _Form:
    """The form of an ONNX file.

    Attributes:
        inputs: the names of the inputs, in order.
        output: the name of the output.
        axes: input or output -> its axes of any length, with their names.
        metadata: what the file says of itself.
    """

    inputs: Sequence[str]
    output: str
    axes: Mapping[str, Mapping[int, str]]
    metadata: Mapping[str, str]


def _number(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor with numbers in the rows that are not there, which tracing prints otherwise."""
    return torch.from_numpy(np.nan_to_num(array) if array.dtype.kind == "f" else array)


def _write(graph: nn.Module, example: Sequence[torch.Tensor], path: Path, form: _Form) -> None:
    """Trace a module and write it with what its user must know in its metadata.

    The exporter that traces takes a second for a head and half a minute less than that of `torch.export`, and needs no
    onnxscript. What tracing would fix by mistake, such as a number of rows, the check finds.
    """
    import onnx

    with _quiet(), torch.no_grad():
        try:
            torch.onnx.export(
                graph,
                tuple(example),
                str(path),
                input_names=list(form.inputs),
                output_names=[form.output],
                dynamic_axes={name: dict(of_input) for name, of_input in form.axes.items()},
                opset_version=OPSET,
                dynamo=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ResultsError(f"the model cannot be written as ONNX: {reason}") from error
    written = onnx.load(str(path))
    for key, value in form.metadata.items():
        entry = written.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(written)
    onnx.save(written, str(path))


def _metadata(record: RunRecord, records: Sequence[RunRecord]) -> dict[str, str]:
    return {
        "emofuse": emofuse.__version__,
        "runs": json.dumps([each.digest for each in records]),
        "name": record.name,
        "target": record.target_kind,
        "classes": json.dumps(list(record.classes)),
        "streams": json.dumps({name: stream["digest"] for name, stream in record.streams.items()}),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of tracing about shapes that are constants here, such as the number of features."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
