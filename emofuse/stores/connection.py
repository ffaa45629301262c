"""The connection of a process to the store: its credentials, its retries, and the errors that its faults become.

Endpoint, region and credentials come from the usual places of AWS's tools: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_PROFILE`, `~/.aws/config`, or the role of the machine. Temporary failures
(no answer, 500, 503, SlowDown) are retried with growing pauses. A process has at most `_CONNECTIONS` requests under
way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from emofuse.errors import StoreError

_CONNECTIONS = 16
_ATTEMPTS = 5
_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
# Callers handle these; all other errors are faults of the store or of the network.
_ORDINARY = (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError, StoreError)
_REFUSED_CONDITIONS = ("PreconditionFailed", "ConditionalRequestConflict", "412")
_FOREIGN = ("botocore", "aiobotocore", "aiohttp")  # whose exceptions have no base class but Exception


@lru_cache(maxsize=1)
def file_system() -> Any:
    """Return the connection of this process to the store, for use from any thread.

    Raises:
        StoreError: s3fs is not installed.
    """
    return _connect(asynchronous=False)


@lru_cache(maxsize=1)
def async_file_system() -> Any:
    """Return the connection for Zarr, which runs requests in its own event loop."""
    return _connect(asynchronous=True)


def forget_connections() -> None:
    """Forget the connections, so that the next use of a store reads the environment again."""
    file_system.cache_clear()
    async_file_system.cache_clear()


def _connect(*, asynchronous: bool) -> Any:
    try:
        import s3fs
    except ImportError:
        raise StoreError("s3:// needs the package s3fs: pip install 'emofuse[s3]'") from None
    connection = s3fs.S3FileSystem(
        asynchronous=asynchronous,
        use_listings_cache=False,  # other processes write too
        skip_instance_cache=True,
        max_concurrency=_CONNECTIONS,
        config_kwargs={
            "retries": {"max_attempts": _ATTEMPTS, "mode": "standard"},
            "max_pool_connections": _CONNECTIONS,
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "read_timeout": _READ_TIMEOUT_S,
        },
    )
    connection.retries = 2  # besides those above; the default of 5 takes minutes to notice that the store is gone
    return connection


@contextmanager
def store_errors(path: object) -> Iterator[None]:
    """Turn faults of the store or of the network into a `StoreError`; a missing object stays `FileNotFoundError`."""
    try:
        yield
    except _ORDINARY:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _FOREIGN:
            raise
        raise StoreError(
            f"{path}: the store cannot be used ({type(error).__name__}: {error}). Check the endpoint and the "
            "credentials (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), then run the same again."
        ) from error


def is_refused_condition(error: OSError) -> bool:
    """Return whether an error says, by the code of the store's reply, that the condition of a write does not hold."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in _REFUSED_CONDITIONS
