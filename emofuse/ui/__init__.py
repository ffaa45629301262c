"""A page on this machine that shows the pipelines, sweeps and caches below a folder, and how far they are.

    places    which folders below a folder are results, caches and reports
    readers   runs, rows of searches and caches, each file read once
    states    what is known of a place at one moment
    watch     all places of a folder, looked at when a browser asks
    server    the page, its numbers as JSON, and the files of reports

Nothing is written or locked, so that what is watched is never disturbed. All of it is read while others write it: a
file that is half written, damaged or gone is passed over, and read again at the next look.
"""

from emofuse.ui.server import WatchPage

__all__ = ["WatchPage"]
