"""Downloads of weights, which are either complete and checked, or not there.

The bytes go to `FILE.partial`, which gets its final name only after the hash was checked. A download that breaks off
leaves the partial file, and the same command resumes it; any other error leaves nothing.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import emofuse
from emofuse.checksum import hash_file
from emofuse.errors import WeightsError
from emofuse.stores import PARTIAL_SUFFIX
from emofuse.weights.content import is_web_page
from emofuse.weights.registry import WeightsEntry, find_entry
from emofuse.weights.store import (
    StoredWeights,
    check_entry_content,
    explain_write_errors,
    find_stored,
    how_to_get,
    keep_file,
    verify_stored,
    weights_dir,
    write_record,
)

Progress = Callable[[int, int | None], None]

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30.0  # between two chunks
_ATTEMPTS = 4
_BACKOFF_S = 1.0  # doubled after every attempt that added no bytes
_TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_NOT_ALLOWED = ". It may ask for a token: accept its terms on its page, and set HF_TOKEN"
_ADVICE = {401: _NOT_ALLOWED, 403: _NOT_ALLOWED, 404: ". Check the names of repository, file and revision"}


class _BrokenOffError(Exception):
    """The connection broke or was never made; the message is the reason. `hopeless` rules out another attempt."""

    def __init__(self, reason: str, *, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.hopeless = hopeless


def fetch_weights(name: str, *, on_progress: Progress | None = None) -> StoredWeights:
    """Download weights of the registry into the weights folder, unless they are there already and complete.

    Args:
        name: the name of the registry entry.
        on_progress: a function that is called after each chunk with the bytes that are there and the bytes of the whole
            file (None if the server does not state them).

    Raises:
        WeightsError: the name is unknown, the file can only be imported, there is no network, the server refuses, it
            sends a web page or another file than the published one, the download breaks off, or the folder cannot be
            written.
    """
    return fetch_entry(find_entry(name), on_progress=on_progress)


def fetch_entry(entry: WeightsEntry, *, on_progress: Progress | None = None) -> StoredWeights:
    """Download the file of an entry, see `fetch_weights`.

    Raises:
        WeightsError: for the reasons given at `fetch_weights`, but for an unknown name.
    """
    name = entry.name
    there = _already_there(entry)
    if there is not None:
        return there
    if entry.url is None:
        raise WeightsError(f"{name!r} cannot be downloaded, only imported: {how_to_get(name)} ({entry.source})")
    partial = weights_dir() / f"{entry.filename}{PARTIAL_SUFFIX}"
    with explain_write_errors():
        partial.parent.mkdir(parents=True, exist_ok=True)
        if not (partial.is_file() and entry.matches(hash_file(partial))):
            _download(entry, entry.url, partial, on_progress or _no_progress)
        try:
            sha256 = check_entry_content(partial, entry, f"{name}: what {entry.url} sent")
        except WeightsError as error:
            _discard(partial)
            raise WeightsError(f"{error}. Nothing was kept") from None
        stored = keep_file(partial, name, entry.filename, sha256, source=entry.url)
        _discard(partial)
        return stored


def _already_there(entry: WeightsEntry) -> StoredWeights | None:
    """Return the record of a complete file, made now if the file has none, or None if the file must be fetched."""
    stored = find_stored(entry.name)
    if stored is not None:
        return stored if verify_stored(stored).state == "ok" else None
    path = weights_dir() / entry.filename
    if not path.is_file():
        return None
    sha256 = hash_file(path)
    if not entry.matches(sha256):
        return None
    with explain_write_errors():
        return write_record(path, entry.name, sha256, source=entry.url or str(path))


def _download(entry: WeightsEntry, url: str, partial: Path, on_progress: Progress) -> None:
    """Download the whole file to `partial`, resuming what is there, in a limited number of attempts."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            _attempt(url, partial, on_progress, entry.token)
        except OSError:  # the disk is full or broken: free the space again
            _discard(partial)
            raise
        except _BrokenOffError as error:
            gained = _size(partial) > before
            failures = 1 if gained else failures + 1
            if error.hopeless or failures >= _ATTEMPTS:
                raise WeightsError(_broken_off(entry, url, partial, str(error))) from None
            time.sleep(_BACKOFF_S * 2 ** (failures - 1))
        else:
            return


def _attempt(url: str, partial: Path, on_progress: Progress, token: str | None) -> None:
    """Make one request, from the end of the partial file if the server can resume, else from the start."""
    start, validator = _size(partial), _read_validator(partial, url)
    headers = {"User-Agent": f"emofuse/{emofuse.__version__}", "Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        with _open(url, headers, token) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT and _resumes_at(response, start)
            _receive(response, partial, start if resumed else 0, url, on_progress)
    except HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            _discard(partial)  # the server has another file than the one that was begun
            raise _BrokenOffError("the server has another file now") from None
        if error.code in _TEMPORARY_STATUSES:
            raise _BrokenOffError(f"HTTP {error.code} {error.reason}") from None
        advice = _ADVICE.get(error.code, "")
        raise WeightsError(f"{url}: the server answered HTTP {error.code} {error.reason}{advice}") from None
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise WeightsError(
                f"{url}: the server's certificate is not trusted ({error.reason.verify_message})"
            ) from None
        raise _BrokenOffError(str(error.reason), hopeless=isinstance(error.reason, socket.gaierror)) from None
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from None


def _open(url: str, headers: dict[str, str], token: str | None) -> Any:
    if urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url}: only http and https are downloaded")
    request = Request(url, headers=headers)  # noqa: S310 - the scheme was checked above
    if token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # the server that it names, no other one
    return urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 - as above


def _receive(response: Any, partial: Path, start: int, url: str, on_progress: Progress) -> None:
    """Append the body of a response to the partial file, from byte `start` on."""
    length = response.headers.get("Content-Length")
    total = start + int(length) if length and length.isdigit() else None
    if start == 0:
        _discard(partial)
        _write_validator(partial, url, response.headers)
    _check_space(partial.parent, total, start)
    done = start
    with partial.open("ab") as file:
        while chunk := _read(response):
            if done == 0 and is_web_page(chunk):
                _discard(partial)
                raise WeightsError(f"{url} is a web page, not a model (a login page, an error page or a proxy's?)")
            file.write(chunk)
            done += len(chunk)
            on_progress(done, total)
    if total is not None and done < total:
        raise _BrokenOffError(f"the connection closed after {done:,} of {total:,} bytes")


def _read(response: Any) -> bytes:
    """Read the next bytes of a body, empty at its end; only errors of the network become `_BrokenOffError`."""
    try:
        chunk: bytes = response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from None
    return chunk


def _resumes_at(response: Any, start: int) -> bool:
    """Return whether a 206 response begins where the partial file ends."""
    content_range = str(response.headers.get("Content-Range", ""))
    if not content_range.startswith(f"bytes {start}-"):
        raise _BrokenOffError(f"the server sent Content-Range {content_range!r}, asked for bytes {start}-")
    return True


def _check_space(folder: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - start > free:
        needed = (total - start) / 2**20
        raise WeightsError(
            f"{folder} has {free / 2**20:,.0f} MiB free, the download needs {needed:,.0f}: free some space or set "
            "EMOFUSE_WEIGHTS_DIR to another folder"
        )


def _broken_off(entry: WeightsEntry, url: str, partial: Path, reason: str) -> str:
    text = f"{entry.name}: no download from {url} ({reason}). "
    kept = _size(partial)
    if kept:
        return text + f"{kept:,} bytes are kept: {entry.fetch_command} resumes the download"
    return text + (f"Check the network, or import a file from elsewhere: emofuse weights import PATH --as {entry.name}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _resume_path(partial).unlink(missing_ok=True)


def _resume_path(partial: Path) -> Path:
    """Return the path of the note beside the partial file: its URL and the version that the server stated."""
    return partial.with_suffix(".resume")


def _read_validator(partial: Path, url: str) -> str | None:
    """Return the value of If-Range with which the server resumes only the same version of the file."""
    path = _resume_path(partial)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return lines[1] if len(lines) == 2 and lines[0] == url else None


def _write_validator(partial: Path, url: str, headers: Any) -> None:
    etag = headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None  # RFC 9110: a weak one does not identify bytes
    validator = strong or headers.get("Last-Modified")
    if validator:
        _resume_path(partial).write_text(f"{url}\n{validator}\n", encoding="utf-8")


def _no_progress(_done: int, _total: int | None) -> None:
    pass
