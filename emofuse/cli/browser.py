"""Opens a page in the default browser of this machine, if there is one."""

from __future__ import annotations

import os
import sys
import webbrowser


def open_in_browser(url: str) -> bool:
    """Open an address, and return whether a browser was started.

    Without a display, no browser is started: Python would take one that draws in this terminal.
    """
    has_display = sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    try:
        return has_display and webbrowser.open(url)
    except (webbrowser.Error, OSError):
        return False
