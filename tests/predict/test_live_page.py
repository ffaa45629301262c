"""The page is for this machine alone, shows the newest picture, and writes nothing to disk."""

from __future__ import annotations

import builtins
import http.client
import io
import json
import os
import socket

import numpy as np
import pytest
from PIL import Image

from emofuse.errors import DeviceError
from emofuse.predict.live_page import LivePage

PICTURE = np.full((20, 30, 3), (200, 0, 0), np.uint8)


@pytest.fixture
def page():
    with LivePage() as opened:
        yield opened


def get(page, path, **headers):
    connection = http.client.HTTPConnection(*page.address, timeout=120)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def path_of(page):
    return page.url.partition(str(page.address[1]))[2]


def test_the_server_binds_to_the_loopback_address_alone(page):
    assert page.address[0] == "127.0.0.1"
    assert page._server.socket.getsockname()[0] == "127.0.0.1"
    assert page._server.socket.family == socket.AF_INET
    assert page.url.startswith(f"http://127.0.0.1:{page.address[1]}/")


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.5", "example.org"])
def test_another_address_is_refused(host):
    with pytest.raises(
        DeviceError, match=r"the live page is for this machine alone: it binds to 127\.0\.0\.1, not to "
    ):
        LivePage(host=host)


def test_a_port_that_is_taken_is_named(page):
    with pytest.raises(DeviceError, match=rf"port {page.address[1]} of this machine cannot be used .*--port 0"):
        LivePage(page.address[1])


def test_the_page_loads_nothing_from_elsewhere(page):
    answer = get(page, path_of(page))
    text = answer.read().decode()
    assert answer.status == 200
    assert "http" not in text.replace('http-equiv="', "")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


def test_without_the_random_word_or_for_another_host_nothing_is_shown(page):
    assert get(page, "/").status == 404
    assert get(page, "/video").status == 404
    assert get(page, path_of(page) + "other").status == 404
    assert get(page, path_of(page), Host="evil.example").status == 403
    assert get(page, path_of(page), Host=f"localhost:{page.address[1]}").status == 200


def test_the_newest_picture_and_its_numbers_are_sent(page):
    page.show(PICTURE, {"rate_hz": 12.5})
    video = get(page, path_of(page) + "video")
    assert video.fp.readline() == b"--frame\r\n"
    assert video.fp.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(video.fp.readline().split(b":")[1])
    video.fp.readline()
    shown = np.asarray(Image.open(io.BytesIO(video.fp.read(length))))
    assert shown.shape == (20, 30, 3)
    assert shown.mean(axis=(0, 1)) == pytest.approx([200, 0, 0], abs=4)
    events = get(page, path_of(page) + "events")
    assert json.loads(events.fp.readline().removeprefix(b"data: ")) == {"rate_hz": 12.5}


def test_nothing_is_written_to_disk(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    opened = []
    real_open, real_os_open = builtins.open, os.open

    def noted(path, mode="r", *rest, **options):
        opened.append(mode)
        return real_open(path, mode, *rest, **options)

    def os_noted(path, flags, *rest, **options):
        opened.append("w" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "r")
        return real_os_open(path, flags, *rest, **options)

    monkeypatch.setattr(builtins, "open", noted)
    monkeypatch.setattr(io, "open", noted)
    monkeypatch.setattr(os, "open", os_noted)
    get(page, path_of(page)).read()
    for _ in range(3):
        page.show(PICTURE, {})
    video = get(page, path_of(page) + "video")
    video.fp.read(200)
    assert all(set(mode) <= set("rb") for mode in opened)
    assert not list(tmp_path.iterdir())


def test_closing_ends_open_connections(page):
    page.show(PICTURE, {})
    events = get(page, path_of(page) + "events")
    events.fp.readline()
    page.close()
    assert b"event: end" in events.read()
    with pytest.raises(ConnectionRefusedError):
        get(page, "/")
