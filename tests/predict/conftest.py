"""The fixtures of small runs and videos of a face."""

from __future__ import annotations

from video_fixtures import face_video, open_run, runs

__all__ = ["face_video", "open_run", "runs"]
