"""TensorBoard's own reader finds what was logged."""

from __future__ import annotations

import pytest
from saved_runs import write_made_up_run

from emofuse.results import list_runs
from emofuse.tracking import log_results, open_trackers

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="the extra `tensorboard` is not installed"
)


def read(folder):
    accumulator = event_accumulator.EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0}
    )
    return accumulator.Reload()


def test_curves_scores_parameters_and_figures_are_read_back(place, records):
    log_results(open_trackers(["tensorboard"], place.out), records, place, title="demo")
    folders = sorted(path.name for path in (place.out / "tensorboard").iterdir())
    assert [name.rpartition("-")[0] for name in folders] == ["net_seed_0", "net_seed_1", "report_demo"]
    run = read(place.out / "tensorboard" / folders[1])
    assert [(each.step, each.value) for each in run.Scalars("curves/train_loss")] == [(1, 1.0), (2, 0.5)]
    assert run.Scalars("val/accuracy")[0].value == 0.625
    assert run.Scalars("test/macro/f1")[0].value == pytest.approx(0.525)
    (tags,) = run.Tensors("tags/text_summary") if "tags/text_summary" in run.Tags()["tensors"] else run.Tensors("tags")
    assert records[1].digest in tags.tensor_proto.string_val[0].decode()
    content = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"train.learning_rate" in content
    report = read(place.out / "tensorboard" / folders[2])
    (image,) = report.Images("figures/progression")
    assert (image.width, image.height) == (4, 3)


def test_an_entry_is_whole_or_absent_and_logged_once(place, records, monkeypatch):
    (tracker,) = open_trackers(["tensorboard"], place.out)
    module = type(tracker).__module__
    import importlib

    events = importlib.import_module(module)._events

    def broken(entry):
        yield next(iter(events(entry)))
        raise OSError("the disk is full")

    monkeypatch.setattr(f"{module}._events", broken)
    from emofuse.tracking.logged import logged_run

    with pytest.raises(OSError, match="the disk is full"):
        tracker.log(logged_run(records[0]))
    assert list((place.out / "tensorboard").iterdir()) == []
    monkeypatch.setattr(f"{module}._events", events)
    said = []
    for _ in range(2):
        log_results([tracker], records, place, with_report=False, say=said.append)
    write_made_up_run(place.runs, "net", seed=2)
    log_results([tracker], list_runs(place.runs), place, with_report=False, say=said.append)
    assert [line.partition(" entries")[0] for line in said] == [
        "tensorboard: 2 of 2",
        "tensorboard: 0 of 2",
        "tensorboard: 1 of 3",
    ]
