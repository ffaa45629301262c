"""The weights of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from emofuse.specs.base import Spec


class RegistryWeights(Spec):
    """Weights by their name in the registry (`emofuse weights list`)."""

    kind: Literal["registry"] = "registry"
    name: str


class FileWeights(Spec):
    """Weights from a file of the user. A `sha256`, if given, is checked."""

    kind: Literal["file"] = "file"
    path: Path
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="64 digits of 0-9 and a-f")


class HubWeights(Spec):
    """Weights from a repository of the Hugging Face hub, fetched once and then used from the folder of weights.

    The hash decides which bytes these are: a file with it may also come from elsewhere (`emofuse weights import`).
    """

    kind: Literal["hub"] = "hub"
    repo: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$", description="OWNER/NAME")
    file: str = Field(
        "model.safetensors",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$",
        description="a path in the repository",
    )
    revision: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="a commit, tag or branch")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="64 digits of 0-9 and a-f, which the hub shows")


class RandomWeights(Spec):
    """Seeded random weights, for demonstrations and tests. Every report made from them states it."""

    kind: Literal["random"] = "random"
    seed: int = 0


def is_random(weights: Mapping[str, Any] | None) -> bool:
    """Return whether weights, as caches and runs record them (plain data with a `kind`, or None), are random."""
    return weights is not None and weights["kind"] == "random"


WeightsSpec = Annotated[RegistryWeights | FileWeights | HubWeights | RandomWeights, Field(discriminator="kind")]

Precision = Literal["float32", "bfloat16"]
"""The precision of a network's weights and activations.

bfloat16 is for GPUs and for CPUs that multiply it (AVX512-BF16, AMX), where it is about three times as fast;
elsewhere it is slower. Features then differ by about half a percent of their length.
"""
