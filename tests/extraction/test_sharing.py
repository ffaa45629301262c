"""The last blocks of a build are shared by workers that would have nothing to do; nothing else changes by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cheap_streams import DeadlySpec, MeanColourSpec, SizeSpec

from emofuse.cache.reader import open_cache
from emofuse.extraction import BuildOptions, build_cache
from emofuse.extraction.isolation import IsolatedExtraction
from emofuse.extraction.sharing import SharedTask, in_parts, shared_out
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob
from emofuse.specs import (
    ActionUnitsSpec,
    BackboneSpec,
    CacheSpec,
    LandmarksSpec,
    LbpSpec,
    ObjectsSpec,
    Places365Spec,
    RandomWeights,
)

SIX = (
    LbpSpec(),
    LandmarksSpec(),
    ActionUnitsSpec(),
    Places365Spec(weights=RandomWeights(seed=0)),
    ObjectsSpec(weights=RandomWeights(seed=0)),
    BackboneSpec(model="resnet50", weights=RandomWeights(seed=0)),
    BackboneSpec(model="resnet50", name="map", output="map", weights=RandomWeights(seed=0)),
)
NAMES = tuple(spec.name for spec in SIX)
CHEAP = CacheSpec(block_rows=16, streams=(MeanColourSpec(), SizeSpec()))
TWO = BuildOptions(workers=2, device="cpu")


def job_of(tasks: int, streams=SIX) -> BuildJob:
    return BuildJob(Path("x"), CacheSpec(streams=streams), {}, "cpu", one_thread=True, tasks=tasks)


def tasks_of(count: int) -> list[BlockTask]:
    return [BlockTask(block, block * 8, NAMES, (None,) * 8) for block in range(count)]


def test_networks_are_spread_and_streams_of_one_network_or_of_faces_stay_together():
    parts = in_parts(job_of(1), tasks_of(1)[0], 2)
    assert [part.streams for part in parts] == [
        ("places365", "resnet50", "map"),
        ("lbp", "landmarks", "action_units", "objects"),
    ] or [set(part.streams) for part in parts] == [
        {"places365", "resnet50", "map"},
        {"lbp", "landmarks", "action_units", "objects"},
    ]
    assert all(part.of_streams == NAMES for part in parts)
    four = [set(part.streams) for part in in_parts(job_of(1), tasks_of(1)[0], 9)]
    assert len(four) == 4
    assert {"resnet50", "map"} in four
    assert {"lbp", "landmarks", "action_units"} in four
    alone = in_parts(job_of(1, SIX[:3]), BlockTask(0, 0, NAMES[:3], (None,)), 2)
    assert [part.streams for part in alone] == [NAMES[:3]]


@pytest.mark.parametrize(
    ("tasks", "workers", "parts"),
    [(3, 2, [1, 1, 2]), (4, 2, [1] * 4), (5, 4, [1, 1, 1, 1, 4]), (7, 4, [1] * 7), (6, 4, [1, 1, 1, 1, 2, 2])],
)
def test_only_what_is_left_over_is_shared(tasks, workers, parts):
    assert [len(each.parts) for each in shared_out(job_of(tasks), tasks_of(tasks), workers)] == parts


def test_a_shared_block_counts_its_rows_once_and_its_failure_once():
    task = tasks_of(1)[0]
    done = [BlockDone(8, {name: (0, 8, 0, 0, 0)}, ()) for name in NAMES[:2]]
    whole = SharedTask([task.for_streams(NAMES[:1]), task.for_streams(NAMES[1:])])
    assert list(whole.add(done[0])) == []
    (joined,) = whole.add(done[1])
    assert (joined.rows, sorted(joined.counts)) == (8, sorted(NAMES[:2]))
    whole = SharedTask([task, task, task])
    failed = BlockFailed("rows 0-7", "no memory")
    assert [list(whole.add(each)) for each in (failed, done[0])] == [[], []]
    assert list(whole.add(failed)) == [done[0], failed]


def test_a_build_whose_last_block_is_shared_has_the_same_bytes(tmp_path, manifest, contents, in_process, monkeypatch):
    asked = []
    compute = IsolatedExtraction.compute
    monkeypatch.setattr(
        IsolatedExtraction, "compute", lambda self, job, task: asked.append(task.streams) or compute(self, job, task)
    )
    summary = build_cache(tmp_path / "shared.zarr", manifest, CHEAP, TWO)
    both = tuple(spec.name for spec in CHEAP.streams)
    assert sorted(asked) == sorted([both, both, *((name,) for name in both)])
    plain = build_cache(tmp_path / "plain.zarr", manifest, CHEAP, in_process)
    assert contents(tmp_path / "shared.zarr") == contents(tmp_path / "plain.zarr")
    assert (summary.rows, summary.counts) == (plain.rows, plain.counts)


def test_an_image_that_ends_its_process_costs_one_row_of_a_shared_block_too(tmp_path, manifest):
    spec = CacheSpec(block_rows=16, streams=(DeadlySpec(red=39, how="kill"), SizeSpec()))
    build_cache(tmp_path / "features.zarr", manifest, spec, TWO)
    streams = open_cache(tmp_path / "features.zarr").streams
    dead = [row for row, code in enumerate(streams["deadly"].status[:, 0]) if code == 4]
    assert len(dead) == 1
    assert (streams["size"].status[dead, 0] == 1).all()
