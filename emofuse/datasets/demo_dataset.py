"""The dataset kind `demo`: a generated dataset; `emofuse.datasets.demo` draws it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from emofuse.datasets.emoset import EmoSetSpec
from emofuse.datasets.roots import check_root_given
from emofuse.datasets.rows import Listing
from emofuse.errors import DatasetError
from emofuse.specs.datasets import DatasetSpecBase


class DemoSpec(DatasetSpecBase):
    """A generated dataset in EmoSet's layout for machines without data; see `emofuse.datasets.demo`.

    Its rows have votes, valence and arousal beside their label.
    """

    kind: Literal["demo"] = "demo"
    images: int = Field(640, ge=24)
    seed: int = Field(0, ge=0)

    def read(self) -> Listing:
        """Generate the dataset unless it is there, and read it as an EmoSet, whose layout it has."""
        from emofuse.datasets.demo import demo_info, generate_demo

        root = check_root_given(self.root, self.kind)
        generate_demo(root, images=self.images, seed=self.seed)
        listing = _read(root)
        info = {**listing.manifest.info, "name": "demo", "kind": self.kind, **demo_info(root)}
        return replace(listing, manifest=replace(listing.manifest, info=info))

    @property
    def generated_rows(self) -> int:
        """The number of images that are drawn."""
        return self.images

    def look(self) -> Listing:
        """Read the dataset that is there, because looking at a folder must not generate one."""
        if self.root is None:
            return self.read()
        if not self.root.exists():
            raise DatasetError(
                f"{self.root}: no demo dataset here yet; make it: emofuse dataset demo --out {self.root}"
            )
        return _read(self.root)


def _read(root: Path) -> Listing:
    """Read a generated dataset as an EmoSet, with the votes, valence and arousal of its rows."""
    from emofuse.datasets.demo import demo_annotations

    listing = EmoSetSpec(root=root).read()
    table = listing.manifest.table.join(demo_annotations(root), on="sample_id", how="left", maintain_order="left")
    return replace(listing, manifest=replace(listing.manifest, table=table))
