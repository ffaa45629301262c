"""Retry writes to a cache with growing pauses where that may help, and explain the error where it does not."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emofuse.errors import CacheError, UnwritableCacheError

_TRIES = 6
_FIRST_PAUSE_S = 0.1
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST}


def write_persistently(write: Callable[[], None], where: str) -> None:
    """Call a function that writes until it succeeds, at most six times within about three seconds.

    Args:
        write: the function, which may be called again after it failed.
        where: the beginning of the error message.

    Raises:
        UnwritableCacheError: the disk is full, or read-only.
        CacheError: something is in the way, or every attempt failed.
    """
    for failures in range(_TRIES):
        try:
            write()
        except OSError as error:
            if failures == _TRIES - 1 or error.errno in _FULL | _FORBIDDEN | _IN_THE_WAY:
                raise _as_cache_error(error, where) from error
            # The random factor keeps the workers of a machine from retrying at the same moments.
            time.sleep(_FIRST_PAUSE_S * 2**failures * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        else:
            return


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Turn an `OSError` of the block into an error that says what cannot be written and why.

    Raises:
        UnwritableCacheError: the disk is full, or read-only.
        CacheError: any other `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise _as_cache_error(error, where) from error


def _as_cache_error(error: OSError, where: str) -> CacheError:
    if error.errno in _FULL:
        return UnwritableCacheError(f"{where} cannot be written: the disk is full ({error.strerror}). Free some space.")
    if error.errno in _FORBIDDEN:
        return UnwritableCacheError(f"{where} cannot be written: it is read-only ({error.strerror}).")
    return CacheError(f"{where} cannot be written ({error})")
