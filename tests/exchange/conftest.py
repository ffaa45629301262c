from __future__ import annotations

from build_fixtures import contents, images, in_process, manifest

__all__ = ["contents", "images", "in_process", "manifest"]
