"""The files of Weights & Biases, offline, hold what was logged, and nothing asks the network."""

from __future__ import annotations

import json
import socket

import pytest

from emofuse.errors import TrackingError
from emofuse.tracking import log_results, open_trackers

wandb = pytest.importorskip("wandb", reason="the extra `wandb` is not installed")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The address of the server that wandb would ask; it accepts connections and answers none."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    for name in ("WANDB_PROJECT", "WANDB_DIR", "WANDB_API_KEY", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield listening
    listening.close()


def was_asked(server):
    try:
        server.accept()
    except BlockingIOError:
        return False
    return True


def read(folder):
    """The records of a run, by wandb's own reader."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (path,) = folder.glob("run-*.wandb")
    store = DataStore()
    store.open_for_scan(str(path))
    records = []
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        records.append(record)
    return records


def test_a_run_is_read_back_and_nothing_asks_the_network(server, place, records, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    said = []
    for _ in range(2):
        log_results(open_trackers(["wandb"], place.out), records[1:], place, title="demo", say=said.append)
    where = f"project emofuse, offline in {place.out / 'wandb'}"
    assert said == [
        f"wandb: 2 of 2 entries logged, {where}",
        f"wandb: 0 of 2 entries logged, 2 logged before, {where}",
    ]
    (folder,) = (place.out / "wandb").glob(f"offline-run-*-{records[1].digest[:32]}")
    content = read(folder)
    (run,) = (record.run for record in content if record.WhichOneof("record_type") == "run")
    assert (run.display_name, run.project, run.job_type, list(run.tags)) == (
        "net, seed 1",
        "emofuse",
        "run",
        ["made-up"],
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["train.learning_rate"] == 1e-4
    assert config["emofuse"]["digest"] == records[1].digest
    points = [
        {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        for record in content
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(point["epoch"], point["curves/train_loss"]) for point in points] == [(1, 1.0), (2, 0.5)]
    summary = {
        (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
        for record in content
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert summary["val/accuracy"] == 0.625
    (of_report,) = (each for each in (place.out / "wandb").glob("offline-run-*") if each != folder)
    artifacts = [each.artifact for each in read(of_report) if each.WhichOneof("record_type") == "artifact"]
    artifacts += [
        each.request.log_artifact.artifact for each in read(of_report) if each.WhichOneof("record_type") == "request"
    ]
    files = {entry.path for artifact in artifacts for entry in artifact.manifest.contents}
    assert files == {"figures/progression.png", "index.html", "summary.md"}
    assert not was_asked(server)


def test_a_line_of_the_list_that_was_not_written_whole_is_passed_over(server, place, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tracker,) = open_trackers(["wandb"], place.out)
    (place.out / "wandb").mkdir()
    lines = [json.dumps({"key": "a", "to": tracker._destination}), json.dumps({"key": "b", "to": []}), '{"key": "c"']
    (place.out / "wandb" / "emofuse-logged.jsonl").write_text("\n".join(lines))
    assert [tracker.has(key) for key in "abc"] == [True, False, False]


def test_no_process_of_wandb_waits_through_the_training(server, place, monkeypatch):
    import psutil

    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    before = psutil.Process().children(recursive=True)
    open_trackers(["wandb"], place.out)
    assert psutil.Process().children(recursive=True) == before


def test_nobody_who_is_logged_in_and_a_mode_that_logs_nothing_are_errors_before_any_work(server, place, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(TrackingError, match=r"nobody is logged in. Log in with `wandb login`, or set WANDB_MODE=off"):
        open_trackers(["wandb"], place.out)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(TrackingError, match=r"WANDB_MODE=disabled logs nothing\. Set it to offline or online"):
        open_trackers(["wandb"], place.out)
    assert not was_asked(server)
