"""The runtime of the networks is an option of a build and no part of a stream's identity; the cache records it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cheap_streams import SizeSpec
from typer.testing import CliRunner

from emofuse.cache.reader import open_cache
from emofuse.cache.writer import discard_blocks
from emofuse.cli import app
from emofuse.errors import StreamError
from emofuse.exchange.merge import merge_caches
from emofuse.extraction import BuildOptions, build_cache, estimate_build, worker
from emofuse.specs import BackboneSpec, CacheSpec, RandomWeights
from emofuse.status import Status
from emofuse.streams import runtimes
from emofuse.streams.networks import compiled
from emofuse.streams.runtimes import ConversionError, openvino_record, openvino_version
from emofuse.upkeep import compare_sample
from emofuse.upkeep.verify import verify_cache

NET = BackboneSpec(model="mobilenet_v3_small", name="net", weights=RandomWeights(seed=0), dtype="float32")
SPEC = CacheSpec(streams=(NET,), block_rows=16)

pytestmark = pytest.mark.skipif(openvino_version() is None, reason="the extra fast is not installed")


@pytest.fixture(scope="module")
def caches(tmp_path_factory, manifest):
    """Runtime -> a cache that it built; OpenVINO's is built by a worker process."""
    folder = tmp_path_factory.mktemp("caches")
    for runtime, workers in (("torch", 0), ("openvino", 1)):
        summary = build_cache(
            folder / runtime, manifest, SPEC, BuildOptions(workers=workers, device="cpu", runtime=runtime)
        )
        assert summary.rows == len(manifest)
        assert summary.notes == ()
    return folder


def test_both_runtimes_build_streams_of_one_digest_that_agree(caches):
    torch, openvino = (open_cache(caches / name).streams["net"] for name in ("torch", "openvino"))
    assert torch.digest == openvino.digest
    assert torch.layout.runtimes == ("torch",)
    assert openvino.layout.runtimes == (openvino_record(),)
    assert np.array_equal(torch.status, openvino.status)
    one, other = np.asarray(torch.features), np.asarray(openvino.features)
    assert not np.array_equal(one, other)
    assert np.abs(one - other).max() < 2e-5 * np.abs(one).max()


def test_a_build_continues_in_the_other_runtime_and_the_cache_records_both(caches, manifest, tmp_path):
    path = tmp_path / "mixed"
    build_cache(path, manifest, SPEC, BuildOptions(workers=0, device="cpu", runtime="torch"))
    discard_blocks(path, "net", [(1, 0)])
    summary = build_cache(path, manifest, SPEC, BuildOptions(workers=0, device="cpu", runtime="openvino"))
    assert summary.rows == 16
    mixed, torch, openvino = (
        np.asarray(open_cache(each).streams["net"].features) for each in (path, caches / "torch", caches / "openvino")
    )
    assert np.array_equal(mixed[16:32], openvino[16:32])
    assert np.array_equal(np.delete(mixed, slice(16, 32), axis=0), np.delete(torch, slice(16, 32), axis=0))
    assert open_cache(path).streams["net"].layout.runtimes == (openvino_record(), "torch")
    shown = CliRunner().invoke(app, ["cache", "info", str(path)])
    assert f"{openvino_record()} and torch" in shown.stdout


def test_a_merge_keeps_the_runtimes_of_all_parts(caches, tmp_path):
    merge_caches(tmp_path / "merged", [caches / "torch", caches / "openvino"])
    assert open_cache(tmp_path / "merged").streams["net"].layout.runtimes == (openvino_record(), "torch")


def test_rows_extracted_again_in_the_other_runtime_are_as_cached(caches, images):
    comparison = compare_sample(caches / "openvino", 2, data=images, device="cpu", runtime="torch")
    assert comparison.differences == ()
    assert 0 < comparison.largest["net"] < 1e-4


def refuse(*_args, **_options):
    raise ConversionError("no rule for aten::odd")


def test_a_network_that_does_not_convert_runs_in_pytorch_and_the_summary_says_so(
    caches, manifest, tmp_path, monkeypatch
):
    monkeypatch.setattr(compiled, "compile_network", refuse)
    monkeypatch.delenv(runtimes.VARIABLE)
    options = BuildOptions(workers=0, device="cpu")
    with pytest.raises(StreamError, match=r"mobilenet_v3_small does not run in OpenVINO: no rule for aten::odd"):
        build_cache(tmp_path / "cache", manifest, SPEC, dataclasses.replace(options, runtime="openvino"))
    summary = build_cache(tmp_path / "cache", manifest, SPEC, options)
    assert summary.notes == (
        "the network mobilenet_v3_small ran in PyTorch, because OpenVINO cannot run it: no rule for aten::odd",
    )
    built = open_cache(tmp_path / "cache").streams["net"]
    assert built.layout.runtimes == ("torch",)
    assert np.array_equal(np.asarray(built.features), np.asarray(open_cache(caches / "torch").streams["net"].features))


def test_a_build_without_openvino_says_how_to_install_it(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "openvino_version", lambda: None)
    options = BuildOptions(workers=0, device="cpu", runtime="openvino")
    with pytest.raises(StreamError, match=r"pip install 'emofuse\[fast\]'"):
        build_cache(tmp_path / "cache", manifest, SPEC, options)


def test_streams_without_a_network_record_no_runtime(tmp_path, manifest):
    spec = CacheSpec(streams=(SizeSpec(),), block_rows=40)
    build_cache(tmp_path / "cache", manifest, spec, BuildOptions(workers=0, device="cpu", runtime="openvino"))
    stream = open_cache(tmp_path / "cache").streams["size"]
    assert stream.layout.runtimes == ()
    assert stream.status[0, 0] != Status.PENDING


def test_an_estimate_measures_the_runtime_of_the_build(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "openvino_version", lambda: None)
    options = BuildOptions(workers=0, device="cpu", runtime="openvino")
    with pytest.raises(StreamError, match=r"pip install 'emofuse\[fast\]'"):
        estimate_build(tmp_path / "cache", manifest, SPEC, options)


def test_a_build_killed_right_after_a_block_has_recorded_what_computed_it(tmp_path, manifest, monkeypatch):
    """The process that builds would record it a moment later; the next build moves the note into the attributes."""
    path = tmp_path / "cache"
    write = worker.write_block

    def die_after_the_first(*args, **options):
        write(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_block", die_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            build_cache(path, manifest, SPEC, BuildOptions(workers=0, device="cpu", runtime="openvino"))
    killed = open_cache(path).streams["net"]
    assert killed.status[0, 0] != Status.PENDING
    assert killed.layout.runtimes == (openvino_record(),)
    assert [each.name for each in (path / "streams" / "net" / ".runtimes").iterdir()] == [openvino_record()]
    assert verify_cache(path).faults == ()
    build_cache(path, manifest, SPEC, BuildOptions(workers=0, device="cpu", runtime="torch"))
    assert open_cache(path).streams["net"].layout.runtimes == (openvino_record(), "torch")
    assert not (path / "streams" / "net" / ".runtimes").exists()
