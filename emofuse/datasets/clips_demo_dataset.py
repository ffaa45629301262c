"""The dataset kind `clips_demo`: generated clips; `emofuse.datasets.clips_demo` draws them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from emofuse.datasets.clips import ClipsSpec
from emofuse.datasets.roots import check_root_given
from emofuse.datasets.rows import Listing
from emofuse.errors import DatasetError
from emofuse.specs.datasets import DatasetSpecBase, DatasetSplitSpec, StratifiedSplit


class ClipsDemoSpec(DatasetSpecBase):
    """Generated clips of twelve speakers for machines without data; see `emofuse.datasets.clips_demo`.

    Its folder is also a dataset of the kind `clips`. The split is drawn by speaker.
    """

    kind: Literal["clips_demo"] = "clips_demo"
    clips: int = Field(576, ge=96)
    seed: int = Field(0, ge=0)
    split: DatasetSplitSpec = StratifiedSplit()

    def read(self) -> Listing:
        """Generate the dataset unless it is there, and read its table."""
        from emofuse.datasets.clips_demo import clips_demo_info, generate_clips_demo

        root = check_root_given(self.root, self.kind)
        generate_clips_demo(root, clips=self.clips, seed=self.seed)
        listing = self._read(root)
        info = {**listing.manifest.info, "name": "clips_demo", "kind": self.kind, **clips_demo_info(root)}
        return replace(listing, manifest=replace(listing.manifest, info=info))

    @property
    def generated_rows(self) -> int:
        """The number of clips that are drawn."""
        return self.clips

    def look(self) -> Listing:
        """Read the dataset that is there, because looking at a folder must not generate one."""
        if self.root is None:
            return self.read()
        if not self.root.exists():
            raise DatasetError(f"{self.root}: no clips_demo dataset here yet; make it: emofuse run clips_demo")
        return self._read(self.root)

    def _read(self, root: Path) -> Listing:
        return ClipsSpec(root=root, split=self.split).read()
