"""A window of OpenCV that shows live predictions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_TITLE = "emofuse live"
_KEYS = (27, ord("q"))
_PROBE = f"import cv2; cv2.namedWindow({_TITLE!r}); cv2.waitKey(1)"


def can_open_window() -> bool:
    """Return whether OpenCV can open a window here.

    Another process tries it: without a display, the library behind OpenCV ends its process.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        tried = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=20, check=False)  # noqa: S603 - fixed code
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


class LiveWindow:
    """A window; `q`, Escape or its button closes it."""

    def __init__(self) -> None:
        import cv2

        self._is_open = True
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, image: npt.NDArray[np.uint8], state: Mapping[str, Any]) -> bool:
        """Show a picture (H, W, 3) uint8 RGB with the speed in its corner; return whether the window is still open."""
        import cv2

        from emofuse.predict.lettering import put_text

        speed = f"{state['rate_hz']:.1f} frames/s, {state['latency_ms']:.0f} ms"
        size_px = max(11, min(image.shape[:2]) // 30)
        place = (size_px // 2, image.shape[0] - 2 * size_px)
        put_text(image, speed, place, size_px=size_px, colour=(255, 255, 255))
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        is_ended = (cv2.waitKey(1) & 0xFF) in _KEYS
        return not is_ended and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close the window. A second call does nothing."""
        import cv2

        if self._is_open:
            self._is_open = False
            cv2.destroyAllWindows()
