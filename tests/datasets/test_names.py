from __future__ import annotations

import os

from PIL import Image

from emofuse.datasets.names import IMAGE_SUFFIXES, SUFFIXES, NameKind, is_debris, kind_of_name, printable
from emofuse.media.decode import FORMATS


def test_every_suffix_that_pillow_has_for_a_decoded_format_is_listed():
    Image.init()
    of_pillow = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    assert of_pillow <= set(IMAGE_SUFFIXES)
    assert tuple(SUFFIXES) == FORMATS


def test_a_name_says_what_a_file_is_in_upper_and_lower_case():
    names = ("a.AVIF", "b.jpe", "c.pbm", "d.HEIC", "e.jxl", "f.mp4", "g.FLAC", "g.txt", "jpg")
    assert [kind_of_name(name) for name in names] == [
        *[NameKind.IMAGE] * 3, *[NameKind.OTHER_PICTURE] * 2, NameKind.CLIP, NameKind.SOUND, *[NameKind.OTHER] * 2,
    ]  # fmt: skip


def test_what_systems_leave_behind_is_debris_and_labels_are_not():
    left = ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", ".git", "._a.jpg")
    assert all(map(is_debris, left))
    assert not any(map(is_debris, ("recycle", "happy", "snapshot", "macosx")))


def test_names_that_differ_in_bytes_that_are_not_utf8_stay_apart():
    assert [printable(os.fsdecode(name)) for name in (b"a\xe9.jpg", b"a\xe8.jpg", "aé.jpg".encode())] == [
        r"a\xe9.jpg", r"a\xe8.jpg", "aé.jpg",
    ]  # fmt: skip
