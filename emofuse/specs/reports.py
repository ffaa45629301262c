"""The spec of the report of a pipeline or sweep."""

from __future__ import annotations

from pydantic import Field

from emofuse.specs.base import Spec


class ReportSpec(Spec):
    """The options of the page of the report. They are part of no digest, so a change trains nothing again."""

    images: bool = Field(True, description="whether the page shows thumbnails of samples")
