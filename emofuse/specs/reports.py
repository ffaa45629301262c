"""The spec of the report of a pipeline or sweep."""

from __future__ import annotations

from pydantic import Field

from emofuse.specs.base import Spec


class ReportSpec(Spec):
    """What the page of the report shows. It is part of no digest, so a change trains nothing again."""

    images: bool = Field(True, description="whether the page shows thumbnails of samples")
