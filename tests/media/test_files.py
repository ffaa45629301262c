"""Sources: files, and members of tar archives, which are read once."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from media_files import number_of, write_clip, write_sound
from PIL import Image

from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.media import files
from emofuse.media.audio import read_sound
from emofuse.media.decode import read_image
from emofuse.media.video import read_clip
from emofuse.specs import ClipSpec, DecodeSpec


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A picture, a clip and a sound in a tar archive."""
    folder = tmp_path_factory.mktemp("shard")
    Image.fromarray(np.full((8, 6, 3), 90, np.uint8)).save(folder / "a.png")
    write_clip(folder / "a.mp4", sound="aac")
    write_sound(folder / "a.wav")
    path = folder / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "a.mp4", "a.wav"):
            tar.add(folder / name, arcname=f"train/{name}")
    return path


def test_members_of_an_archive_are_read_as_files_are(archive):
    picture = read_image(Source(archive, member="train/a.png"), DecodeSpec())
    np.testing.assert_array_equal(picture, np.full((8, 6, 3), 90))
    clip = Source(archive, member="train/a.mp4")
    assert [number_of(frame) for frame in read_clip(clip, ClipSpec(frames=4), DecodeSpec()).frames] == [6, 18, 31, 43]
    assert read_sound(clip).rate_hz == 44100
    np.testing.assert_array_equal(
        read_sound(Source(archive, member="train/a.wav")).samples, read_sound(Source(archive.parent / "a.wav")).samples
    )


def test_a_member_that_is_not_there_is_refused(archive):
    with pytest.raises(DecodeError, match=r"^the archive has no member 'train/b\.png'$"):
        read_image(Source(archive, member="train/b.png"), DecodeSpec())


def test_a_compressed_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "shard.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"), io.BytesIO())
    with pytest.raises(DecodeError, match=r"^no tar archive whose members can be sought .*; a compressed one can not$"):
        read_image(Source(tmp_path / "shard.tar.gz", member="a"), DecodeSpec())


def test_an_archive_that_was_cut_off_is_refused(archive, tmp_path):
    cut = tmp_path / "shard.tar"
    cut.write_bytes(archive.read_bytes()[:-15_000])
    with pytest.raises(DecodeError, match=r"^(the archive is cut off within|no tar archive|the archive has no)"):
        read_sound(Source(cut, member="train/a.wav"))


@pytest.mark.parametrize("whole", [True, False])
def test_who_reads_a_file_receives_its_bytes_unless_it_is_long(archive, monkeypatch, whole):
    path = archive.parent / "a.mp4"
    if not whole:
        monkeypatch.setattr(files, "WHOLE_BYTES", 100)
    seen = []
    read_sound(Source(path), on_read=lambda status, data: seen.append((status.st_size, data)))
    assert seen == [(path.stat().st_size, path.read_bytes() if whole else None)]
