"""The template of a build, started before its dataset is read, so that both take their time at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from emofuse.errors import EmofuseError
from emofuse.extraction.forks import ProcessTemplate, can_fork, modules_of
from emofuse.extraction.options import BuildOptions
from emofuse.machine.devices import resolve_device
from emofuse.specs import CacheSpec, ImportedSpec
from emofuse.stores import as_path, is_remote
from emofuse.streams.kept_networks import is_network_kept
from emofuse.streams.runtimes import resolve_runtime

# Native libraries read these when they are loaded, so they must be set before an interpreter starts. A worker has one
# thread, because there is one worker for each core.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
QUIET = {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}

_STARTED: ContextVar[list[ProcessTemplate] | None] = ContextVar("emofuse_started_template", default=None)


@contextmanager
def template_ahead(path: str | Path, spec: CacheSpec, options: BuildOptions) -> Iterator[None]:
    """Start the template of the build that follows in the context, if it surely has something to extract.

    Args:
        path: the path of the cache; a stream that it does not have yet is to be extracted.
        spec: the spec of the cache.
        options: the options of the build.
    """
    started = [start_template(spec, options)] if _needs_processes(as_path(path), spec, options) else []
    token = _STARTED.set(started)
    try:
        yield
    finally:
        _STARTED.reset(token)
        for template in started:  # no build has taken it
            template.close()


def take_template(spec: CacheSpec, options: BuildOptions) -> ProcessTemplate | None:
    """Return the template that was started ahead, or a new one; None where processes cannot be forked."""
    started = _STARTED.get()
    if started:
        return started.pop()
    return start_template(spec, options) if can_fork() else None


def start_template(spec: CacheSpec, options: BuildOptions) -> ProcessTemplate:
    """Start a template for the streams of a spec."""
    return ProcessTemplate(modules_of(spec, kept=kept_streams(spec, options)), {**QUIET, **ONE_THREAD})


def kept_streams(spec: CacheSpec, options: BuildOptions) -> frozenset[str]:
    """Return the names of the streams whose networks are kept as compiled ones, so that PyTorch is not needed for them.

    It is a guess, made before the build is planned: an extraction process imports what it needs in any case.
    """
    try:
        if resolve_runtime(options.runtime, resolve_device(options.device)) != "openvino":
            return frozenset()
        return frozenset(stream.name for stream in spec.streams if is_network_kept(stream, threads=1))
    except EmofuseError:
        return frozenset()  # the build says what is wrong


def _needs_processes(path: Path, spec: CacheSpec, options: BuildOptions) -> bool:
    if options.in_this_process or options.scheduler is not None or is_remote(path) or not can_fork():
        return False
    extracted = [stream.name for stream in spec.streams if not isinstance(stream, ImportedSpec)]
    return any(not (path / "streams" / name).is_dir() for name in extracted)
