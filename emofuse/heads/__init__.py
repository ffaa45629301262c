"""Fusion heads turn features of several streams into logits. Each file holds one kind, for K heads side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from emofuse.errors import TrainingError
from emofuse.heads.initial import initialise
from emofuse.heads.kernel_ridge import KernelRidgeHead, support_rows_of
from emofuse.heads.links import Link
from emofuse.heads.members import HeadMember
from emofuse.heads.stems import Shape, StemChoice, dim_of
from emofuse.specs import HeadSpec, KernelRidgeHeadSpec, NetworkHeadSpec

_AVERAGES_OUTPUTS = {"averaged_logistic.AveragedLogisticHead", "late.LateHead"}
"""The heads that need the link themselves, since they average outputs and not logits."""


def make_head(
    spec: HeadSpec, group: Sequence[HeadMember], dims: Mapping[str, Shape], classes: int, link: Link = "softmax"
) -> nn.Module:
    """Build K heads of one kind as one module with initial weights: `head(batch, noise) -> logits (K, B, C)`.

    `emofuse.training.validation.predict_outputs` turns logits into outputs by the link.

    Args:
        spec: the kind of the heads and their sizes. Its dropout is not read: each member has its own.
        group: the K members, ordered by fold. `[HeadMember(streams)]` is a single head.
        dims: the shape of a row of each stream, D for a vector. Streams that no member has are left out.
        classes: the number C of outputs.
        link: what turns logits into outputs.
    """
    head = make_empty_head(spec, group, dims, classes, link)
    initialise(head)
    return head


@lru_cache(maxsize=4096)
def count_parameters(spec: HeadSpec, dims: tuple[Shape, ...], classes: int) -> int:
    """Return the number of trainable parameters of a single head on streams of these shapes."""
    named = {f"stream{index}": dim for index, dim in enumerate(dims)}
    with torch.device("meta"):
        head = make_empty_head(spec, [HeadMember(tuple(named))], named, classes)
    return sum(tensor.numel() for tensor in head.parameters())


def load_head_weights(
    spec: HeadSpec,
    dims: Mapping[str, Shape],
    classes: int,
    weights: Mapping[str, npt.NDArray[Any]],
    link: Link = "softmax",
) -> nn.Module:
    """Build a single head with the given weights, in evaluation mode.

    Args:
        spec: the kind of the head and its sizes.
        dims: the shape of a row of each stream, D for a vector.
        classes: the number C of outputs.
        weights: the arrays by name, without the axis of members.
        link: what turns logits into outputs.

    Raises:
        RuntimeError: the weights belong to another head. The error comes from torch and names all differences.
    """
    if isinstance(spec, KernelRidgeHeadSpec):
        head: nn.Module = KernelRidgeHead(spec.kernel, vector_dims(dims, spec.kind), support_rows_of(weights), classes)
    else:
        head = make_empty_head(spec, [HeadMember(tuple(dims))], dims, classes, link)
    head.load_state_dict({name: torch.from_numpy(array).unsqueeze(0) for name, array in weights.items()})
    return head.eval()


def make_empty_head(
    spec: HeadSpec, group: Sequence[HeadMember], dims: Mapping[str, Shape], classes: int, link: Link = "softmax"
) -> nn.Module:
    """Build the same module as `make_head` with uninitialised weights, also on torch's `meta` device."""
    dims = {stream: dim for stream, dim in dims.items() if any(stream in member.streams for member in group)}
    if isinstance(spec, KernelRidgeHeadSpec):
        return KernelRidgeHead(spec.kernel, vector_dims(dims, spec.kind), spec.landmarks, classes)
    if not spec.module_class:
        takes_shapes = isinstance(spec, NetworkHeadSpec)
        return spec.make(group, dims if takes_shapes else vector_dims(dims, spec.kind), classes)
    module, name = spec.module_class.split(".")
    make: Callable[..., nn.Module] = getattr(import_module(f"emofuse.heads.{module}"), name)
    of_link: dict[str, Any] = {"link": link} if spec.module_class in _AVERAGES_OUTPUTS else {}
    return make(group, dims, classes, stems=stems_of(spec), **of_link, **spec.sizes())


def stems_of(spec: HeadSpec) -> StemChoice:
    """Return the stems of a head; for kinds of heads that cannot choose, the stems without weights."""
    if not isinstance(spec, NetworkHeadSpec):
        return StemChoice()
    return StemChoice(spec.temporal, spec.spatial, spec.stem_width, spec.patch_kernels, spec.stem_norm)


def vector_dims(dims: Mapping[str, Shape], kind: str) -> dict[str, int]:
    """Return the width D of each stream, for a kind of head that has no stems.

    Raises:
        TrainingError: a stream is not a vector.
    """
    other = {stream: shape for stream, shape in dims.items() if not isinstance(shape, int) and len(shape) > 1}
    if other:
        named = ", ".join(f"{stream} {shape}" for stream, shape in other.items())
        raise TrainingError(f"a {kind} head takes only vectors, got {named}. Choose another head or other streams")
    return {stream: dim_of(shape) for stream, shape in dims.items()}
