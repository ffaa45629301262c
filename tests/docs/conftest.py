from __future__ import annotations

import pytest
from cache_fixtures import make_manifest
from workshop import DOCS, Workshop, read_blocks

__all__ = ["make_manifest", "workshop"]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The folder behind the tutorial, whose results other pages call `demo` and `mine`."""
    made = Workshop(tmp_path_factory.mktemp("workshop"))
    (made.folder / "emofuse-runs").mkdir()
    for name in ("demo", "mine"):
        (made.folder / "emofuse-runs" / name).symlink_to("first")
    for block in read_blocks(DOCS / "tutorial.md"):
        made.save(block)
        if block.language == "console" and block.not_run is None:
            made.run(block)
    return made
