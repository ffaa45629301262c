"""Files of the Hugging Face hub are fetched like those of the registry, and found by their hash."""

from __future__ import annotations

import hashlib
import io

import pytest
import torch
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import WeightsError
from emofuse.specs import HubWeights
from emofuse.weights import fetch, fetch_entry, hub_entry, import_weights, resolve_weights
from emofuse.weights.fetch import fetch_weights
from emofuse.weights.store import verify_weights

REPO, REVISION = "someone/a-model", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def content():
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(1000)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def spec(content):
    return HubWeights(repo=REPO, revision=REVISION, file="model.pt", sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def hub(server, content, monkeypatch):
    server.body = content
    monkeypatch.setenv("HF_ENDPOINT", server.url.partition("/files")[0] + "/")
    return server


def test_a_missing_file_names_the_whole_command(folder, spec):
    command = f"emofuse weights fetch --hub {REPO} --file model.pt --revision {REVISION} --sha256 {spec.sha256}"
    with pytest.raises(WeightsError, match=f"'{REPO}/model.pt' are not on this machine. Get them: {command}$"):
        resolve_weights(spec)


def test_the_command_fetches_and_the_file_is_found_by_its_hash(folder, hub, spec):
    arguments = ["--hub", REPO, "--file", "model.pt", "--revision", REVISION, "--sha256", spec.sha256]
    done = CliRunner().invoke(app, ["weights", "fetch", *arguments])
    assert done.exit_code == 0, done.output
    assert f"someone--a-model--{spec.sha256[:12]}" in done.output
    found = resolve_weights(spec)
    assert (found.kind, found.name, found.sha256) == ("hub", f"{REPO}/model.pt", spec.sha256)
    assert found.path.read_bytes() == hub.body
    assert [verdict.state for verdict in verify_weights()] == ["ok"]


def test_the_address_is_that_of_the_revision(spec, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub_entry(spec).url == f"https://huggingface.co/{REPO}/resolve/{REVISION}/model.pt"


def test_an_imported_file_with_the_hash_is_the_file_of_the_hub(folder, spec, content, tmp_path):
    path = tmp_path / "elsewhere.pt"
    path.write_bytes(content)
    import_weights(path, "mine")
    assert resolve_weights(spec).path.read_bytes() == content


def test_another_file_than_the_stated_one_is_not_kept(folder, hub, spec):
    hub.body += b"more"
    with pytest.raises(WeightsError, match=rf"expected SHA-256 {spec.sha256}, got [0-9a-f]{{64}}\. Nothing was kept"):
        fetch_entry(hub_entry(spec))
    with pytest.raises(WeightsError, match="are not on this machine"):
        resolve_weights(spec)


def test_a_download_that_breaks_off_is_resumed_by_the_same_command(folder, hub, spec, monkeypatch):
    monkeypatch.setattr(fetch, "_ATTEMPTS", 1)
    hub.cuts = [500]
    with pytest.raises(
        WeightsError, match=r"500 bytes are kept: emofuse weights fetch --hub someone/a-model .* resumes"
    ):
        fetch_entry(hub_entry(spec))
    fetch_entry(hub_entry(spec))
    assert hub.asked == [None, "bytes=500-"]
    assert resolve_weights(spec).path.read_bytes() == hub.body


def test_a_damaged_file_names_the_command(folder, hub, spec):
    path = fetch_entry(hub_entry(spec)).path
    path.write_bytes(b"x" * len(hub.body))
    with pytest.raises(
        WeightsError, match=r"are damaged: .*Get them again: emofuse weights fetch --hub someone/a-model"
    ):
        resolve_weights(spec)


def test_a_secret_is_sent_to_the_named_server_alone(spec, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    asked = []
    monkeypatch.setattr(fetch, "urlopen", lambda request, timeout: asked.append(request))
    entry = hub_entry(spec)
    assert "secret" not in repr(entry)
    fetch._open(entry.url, {}, entry.token)
    fetch._open(entry.url, {}, None)
    assert asked[0].unredirected_hdrs == {"Authorization": "Bearer secret"}
    assert asked[0].headers == {}
    assert not asked[1].has_header("Authorization")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name weights from `emofuse weights list`, or a repository with --hub"),
        (["--hub", "a/b"], "sha256"),
        (["--hub", "nothing", "--revision", "main", "--sha256", "0" * 64], "repo"),
    ],
)
def test_what_the_command_lacks_is_said(folder, arguments, message):
    done = CliRunner().invoke(app, ["weights", "fetch", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)


def test_safetensors_without_a_published_hash_are_checked_to_be_complete(folder, server, register):
    from safetensors.torch import save

    whole = save({"weight": torch.zeros(100)})
    url = server.url.replace("model.pth", "model.safetensors")
    register(name="mine", url=url, sha256=None)
    server.body = whole[:-10]
    with pytest.raises(WeightsError, match="is not a complete safetensors file"):
        fetch_weights("mine")
    server.body, server.etag = whole, '"second"'
    assert fetch_weights("mine").sha256 == hashlib.sha256(whole).hexdigest()
