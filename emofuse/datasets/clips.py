"""The dataset kind `clips`: a table of clips, sounds, or spans of longer files (MELD, IEMOCAP, and your own)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from emofuse.datasets.csv_table import CsvSpec
from emofuse.specs.datasets import DatasetSplitSpec, StratifiedSplit


class ClipsSpec(CsvSpec):
    """A CSV or Parquet table with one row for each clip, sound or utterance; paths are below `root`.

    Columns that the table may have, under these names or those that the spec gives: `group` (the speaker, which splits
    and folds never part), `audio_path` (the file with the sound, where it lies apart), `start_s` and `end_s` (the span
    of the row in a longer file, in seconds or as hours:minutes:seconds), and `member` (the name of a file in the
    archive at `path`, or of a cell in the table there). All other columns are attributes, as in a csv dataset. Without
    a split of its own, the split is drawn, by group if there are groups.
    """

    optional: ClassVar[frozenset[str]] = frozenset({"group"})
    kind: Literal["clips"] = "clips"  # type: ignore[assignment]
    table: Path = Path("clips.csv")
    group_column: str | None = "group"
    audio_column: str = "audio_path"
    start_column: str = "start_s"
    end_column: str = "end_s"
    member_column: str = "member"
    split: DatasetSplitSpec = StratifiedSplit()

    def source_columns(self) -> dict[str, str]:
        """See `CsvSpec.source_columns`."""
        return {
            "member": self.member_column,
            "audio_path": self.audio_column,
            "start_s": self.start_column,
            "end_s": self.end_column,
        }
