"""MLflow's own client finds what was logged, in a local database."""

from __future__ import annotations

import pytest

from emofuse.errors import TrackingError
from emofuse.tracking import log_results, open_trackers

mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
pytest.importorskip("sqlalchemy", reason="a local database of MLflow needs sqlalchemy, which optuna brings")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A local database; to make its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(database, tmp_path, monkeypatch):
    """A client of an experiment of the test's own."""
    mlflow.set_tracking_uri(database)
    client = mlflow.MlflowClient()
    client.create_experiment(str(tmp_path), artifact_location=(tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", str(tmp_path))
    yield client
    mlflow.set_tracking_uri(None)


def runs_of(client, tmp_path):
    experiment = client.get_experiment_by_name(str(tmp_path))
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name)


def test_parameters_curves_scores_tags_and_the_report_are_read_back(client, place, records, tmp_path):
    log_results(open_trackers(["mlflow"], place.out), records, place, title="demo")
    first, second, report = runs_of(client, tmp_path)
    assert [run.info.run_name for run in (first, second, report)] == ["net, seed 0", "net, seed 1", "report: demo"]
    assert [run.info.status for run in (first, second, report)] == ["FINISHED"] * 3
    assert second.data.params["train.learning_rate"] == "0.0001"
    assert second.data.metrics["val/accuracy"] == 0.625
    assert second.data.metrics["test/per_class/fear/anger/f1"] == pytest.approx(0.525)
    assert second.data.tags["emofuse.digest"] == records[1].digest
    assert second.data.tags["emofuse.dataset"] == "made-up"
    assert first.data.tags["mlflow.note.content"] == "One row is left out."
    assert first.info.end_time - first.info.start_time == 1000
    curve = client.get_metric_history(second.info.run_id, "train_loss")
    assert sorted((point.step, point.value) for point in curve) == [(1, 1.0), (2, 0.5)]
    assert [file.path for file in client.list_artifacts(report.info.run_id)] == ["figures", "index.html", "summary.md"]
    assert [file.path for file in client.list_artifacts(report.info.run_id, "figures")] == ["figures/progression.png"]


def test_a_run_is_logged_once_and_one_that_was_logged_in_part_is_logged_anew(client, place, records, tmp_path):
    for _ in range(2):
        log_results(open_trackers(["mlflow"], place.out), records[:1], place, with_report=False)
    (whole,) = runs_of(client, tmp_path)
    client.delete_tag(whole.info.run_id, "emofuse.logged")
    log_results(open_trackers(["mlflow"], place.out), records[:1], place, with_report=False)
    (anew,) = runs_of(client, tmp_path)
    assert anew.info.run_id != whole.info.run_id


def test_names_that_mlflow_does_not_allow_are_replaced_and_told_apart():
    from emofuse.tracking.mlflow import _allowed

    assert list(_allowed({"f1/é(1)": 1, "f1/é[1]": 2, "a" * 300: 3})) == [
        ("f1/é_1_", 1),
        ("f1/é_1_-2", 2),
        ("a" * 240, 3),
    ]


def test_a_server_that_is_down_is_said_with_the_command_that_logs_again(place, records, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"3 of 3 .*http://127\.0\.0\.1:9.* emofuse results log \S+ --to mlflow"):
        log_results(open_trackers(["mlflow"], place.out), records, place)
