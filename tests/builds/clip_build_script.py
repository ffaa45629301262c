"""Builds a cache of clips in a process that tests can kill: clip_build_script.py CLIPS CACHE SECONDS.

SECONDS is the delay of every clip.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from clip_corpus import SPEC, read_corpus

from emofuse.extraction import BuildOptions, build_cache
from emofuse.streams.reading import SampleReader

if __name__ == "__main__":
    clips, cache, seconds = sys.argv[1:]
    read = SampleReader.read

    def slowly(*arguments, **options):
        time.sleep(float(seconds))
        return read(*arguments, **options)

    SampleReader.read = slowly
    build_cache(cache, read_corpus(Path(clips)), SPEC, BuildOptions(workers=0, device="cpu"))
