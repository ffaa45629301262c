"""What the command line says of an error of the system: a full disk, a folder that may not be read, no file."""

from __future__ import annotations

import errno
import os
import re

# A file is written under a name such as `.rows.csv.3c5b4210.partial` and then renamed; users know the name alone.
_UNFINISHED = re.compile(r"\.([^/]+)\.[0-9a-f]{8}\.partial$")
_TEXTS = {
    errno.ENOSPC: "the disk is full. Free some space and run the same command again: finished work is kept",
    errno.EDQUOT: "your share of the disk is used up. Free some space and run the same command again: finished work "
    "is kept",
    errno.EROFS: "the disk is read-only. Name another folder",
    errno.EACCES: "this user may not read or write it. Change its permissions, or name another path",
    errno.EPERM: "this user may not read or write it. Change its permissions, or name another path",
    errno.EMFILE: "too many files are open. Allow more: ulimit -n 4096",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "there is not enough memory",
    errno.EIO: "the disk does not work (input/output error)",
}


def describe_error(error: Exception) -> str:
    """Return the message of an error of emofuse, or a sentence on an error of the system with its file."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    text = _TEXTS.get(error.errno, error.strerror or os.strerror(error.errno))
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    names = list(dict.fromkeys(_UNFINISHED.sub(r"\1", name) for name in names))
    return f"{' -> '.join(names)}: {text}" if names else text
