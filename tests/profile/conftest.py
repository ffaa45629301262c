"""Figures as a profile holds them, made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emofuse.profile.figures import (
    ConfigurationFigures,
    Epoch,
    HeadFigures,
    MeasuredCost,
    PathFigures,
    Peak,
    Profile,
    Timing,
)

MIB = 2**20
LBP = MeasuredCost(0, 0, None)
DETECTOR = MeasuredCost(None, 3 * MIB, None)
RESNET = MeasuredCost(23_500_000, 90 * MIB, 8_200_000_000)


def figures(name, streams, extractors) -> ConfigurationFigures:
    one, many = Timing(1, 100, 20.0, 30.0), Timing(64, 5, 640.0, 1280.0)
    start = Peak(600 * MIB, None)
    path = PathFigures(
        extractors=extractors,
        dims=dict.fromkeys(streams, 256),
        extraction=(replace(one, median_ms=19.0), replace(many, median_ms=576.0)),
        head=(replace(one, median_ms=1.0), replace(many, median_ms=64.0)),
        whole=(one, many),
        start=start,
        peaks=(Peak(700 * MIB, None), Peak(800 * MIB, None)),
        missing={"lbp": 3},
    )
    head = HeadFigures(
        cost=MeasuredCost(1_500_000, 6 * MIB, 3_000_000),
        train_flops_per_row=9_000_000,
        latency=(Timing(1, 100, 0.5, 0.75), Timing(64, 100, 3.2, 6.4)),
        epoch=Epoch("synthetic", 1000, 286, 64, 4, 0.25, 0.375),
        start=start,
        inference=Peak(610 * MIB, None),
        training=Peak(650 * MIB, None),
        table_bytes=4 * 1286 * 256,
    )
    return ConfigurationFigures(name, streams, path, head)


@pytest.fixture
def profile() -> Profile:
    """Two configurations, one without a network."""
    conditions = {
        "date": "2026-01-01T00:00:00+00:00",
        "system": "Linux x86_64",
        "cpu": "A fast one",
        "cores": 2,
        "memory_bytes": 16 * 2**30,
        "load_before": 0.5,
        "threads": 2,
        "omp_wait_policy": "PASSIVE",
        "device": "cpu",
        "versions": {"emofuse": "0.1.0", "torch": "2.6"},
        "images": {"source": "drawn", "count": 64},
    }
    detector = {"face detector (face_mesh)": DETECTOR}
    both = (
        figures("LBP", ("lbp",), {"lbp": LBP, **detector}),
        figures("LBP + ResNet-50", ("lbp", "resnet50"), {"lbp": LBP, "resnet50": RESNET, **detector}),
    )
    return Profile("small", conditions, ("resnet50: RANDOM WEIGHTS stand in.",), both)
