"""Members of files, read in place: archives, and cells of tables."""

from __future__ import annotations

import tarfile
import zipfile
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from member_files import flipped, images, picture, pixels, write_parquet, write_zip

from emofuse.datasets import members
from emofuse.datasets.members import open_members, parquet_cells, read_member
from emofuse.errors import DatasetError, DecodeError

FILES = {f"happy/{value}.png": picture(value) for value in range(5)}


def refused(path, member, match, check_length=None):
    with pytest.raises(DecodeError, match=match) as info:
        read_member(path, member, check_length=check_length)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_in_a_zip_archive_are_read_in_place(tmp_path, method):
    path = write_zip(tmp_path / "faces.zip", FILES, method)
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("sad")
    assert open_members(path).names == list(FILES)
    assert {name: read_member(path, name) for name in FILES} == FILES
    assert open_members(path).length("happy/3.png") == len(FILES["happy/3.png"])


def test_links_in_a_zip_archive_are_no_files(tmp_path):
    link = zipfile.ZipInfo("happy/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert open_members(tmp_path / "faces.zip").names == []


def test_bad_members_of_a_zip_archive_are_refused_with_the_reason(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {"a.bin": b"a" * 1000}, zipfile.ZIP_STORED)
    refused(path, "b.bin", r"^the archive has no member 'b\.bin'$")
    flipped(path, path.read_bytes().find(b"aaaa") + 10)
    refused(path, "a.bin", r"^the member 'a\.bin' is damaged: its CRC-32 does not fit$")
    path = write_zip(tmp_path / "deflated.zip", {"a.bin": bytes(range(256)) * 4})
    flipped(path, 40)
    refused(path, "a.bin", r"^the member 'a\.bin' (is damaged|has (more|fewer) bytes)")
    path = write_zip(tmp_path / "bzip2.zip", {"a.bin": b"a"}, zipfile.ZIP_BZIP2)
    refused(path, "a.bin", r"^the member 'a\.bin' is compressed by bzip2; stored and deflated ones can be read$")


def test_an_archive_that_was_cut_off_or_is_none_is_refused(tmp_path):
    path = write_zip(tmp_path / "faces.zip", FILES)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "happy/1.png", r"^no whole zip archive \(.*\): it may be cut off, as by a failed download$")
    (tmp_path / "page.zip").write_text("<html>404</html>")
    refused(tmp_path / "page.zip", "happy/1.png", r"^no whole zip archive")


def test_an_encrypted_member_is_refused(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {"a.bin": b"a" * 50}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of the local header, and that of the directory
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "a.bin", r"^the member 'a\.bin' is encrypted: unpack the archive with its password$")


def test_a_bomb_is_unpacked_no_further_than_it_may_be(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "bomb.zip", {"a.png": b"\0" * 50_000_000})
    assert path.stat().st_size < 100_000

    def at_most_a_million(length):
        if length > 1_000_000:
            raise DecodeError(f"{length:,} bytes")

    refused(path, "a.png", r"^50,000,000 bytes$", at_most_a_million)
    monkeypatch.setattr(members, "MEMBER_BYTES", 1_000_000)
    refused(path, "a.png", r"^50,000,000 bytes, more than the 1,000,000 that a member may have$")
    data = path.read_bytes()  # the directory lies: 10 bytes
    lying = (50_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    path.write_bytes(data.replace(*lying))
    refused(path, "a.png", r"^the member 'a\.png' has more bytes than the 10 that the archive states$")


HEADERS = [
    "emotion,pixels,Usage",
    "emotion, Usage, pixels",
    '"emotion";"pixels";"Usage"',
    "\ufeffpixels\temotion\tUsage",
]


@pytest.mark.parametrize("header", HEADERS)
def test_cells_of_a_csv_table_are_pictures_of_their_pixels(tmp_path, header):
    separator = ";" if ";" in header else "\t" if "\t" in header else ","
    names = [name.strip(' "\ufeff') for name in header.split(separator)]
    lines = [header]
    for value in (7, 250):
        cells = {"emotion": "3", "pixels": f'"{pixels(value)}"', "Usage": "Training"}
        lines += [separator.join(cells[name] for name in names), ""]  # a blank line is no row
    path = tmp_path / "fer2013.csv"
    path.write_text("\r\n".join(lines), encoding="utf-8")
    assert read_member(path, "pixels[0]") == b"P5 48 48 255\n" + bytes([7]) * 2304
    assert read_member(path, "pixels[1]") == b"P5 48 48 255\n" + bytes([250]) * 2304
    refused(path, "pixels[2]", r"^the table has no row 2: it has 2, counted from 0$")
    refused(path, "pixel[0]", r"^the table has no column 'pixel'.* did you mean 'pixels'\?")
    refused(path, "pixels", r"^a member of a table must be named column\[row\], such as image\[17\], got 'pixels'$")


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        (pixels(1, 2303), r"^2303 pixel values, which are no square picture \(48 x 48 has 2304\)$"),
        (pixels(256, 4), r"^pixel values must be from 0 to 255, got 256$"),
        (pixels(-1, 4), r"^pixel values must be from 0 to 255, got -1$"),
        ("1 2 x 4", r"^pixel values must be whole numbers from 0 to 255, got 'x'$"),
        ("1 2 3.5 4", r"^pixel values must be whole numbers from 0 to 255, got '3\.5'$"),
        ("9" * 30, r"^pixel values must be whole numbers"),
        ("", r"^the cell is empty$"),
        ("1 2,3 4", r"^row 0 of the table has 3 fields, the header has 2$"),
    ],
)
def test_cells_that_are_no_pixels_are_refused_with_the_reason(tmp_path, cell, match):
    (tmp_path / "t.csv").write_text(f"pixels,emotion\n{cell},1\n")
    refused(tmp_path / "t.csv", "pixels[0]", match)


def test_line_breaks_within_quotes_and_across_parts_of_the_file_divide_no_row(tmp_path, monkeypatch):
    from emofuse.datasets.members import csv_cells

    monkeypatch.setattr(csv_cells, "_CHUNK_BYTES", 7)
    path = tmp_path / "t.csv"
    path.write_text('note,pixels\n"a\n""b""",1\n\n"c\n\nd",2\nplain,3')
    assert [read_member(path, f"pixels[{row}]")[-1] for row in range(3)] == [1, 2, 3]
    assert list(open_members(path).read_rows()) == [['a\n"b"', "1"], ["c\n\nd", "2"], ["plain", "3"]]


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(bytes(range(128, 256)) * 20_000)
    refused(tmp_path / "t.csv", "pixels[0]", r"^no(t UTF-8 text| CSV table)")
    (tmp_path / "empty.csv").write_text("")
    refused(tmp_path / "empty.csv", "pixels[0]", r"^no CSV table: it has no header$")


@pytest.mark.parametrize("group", [2, 100])
def test_cells_of_a_parquet_table_are_read_in_any_order(tmp_path, monkeypatch, group):
    monkeypatch.setattr(parquet_cells, "_BATCH_BYTES", 200)
    monkeypatch.setattr(parquet_cells, "_KEPT_BYTES", 500)
    contents = [picture(value) for value in range(9)]
    columns = {"image": images(*contents), "raw": contents, "label": [*range(9)]}
    columns["text"] = [pixels(value, 4) for value in range(9)]
    path = write_parquet(tmp_path / "train.parquet", columns, row_group_size=group)
    for row in (0, 1, 2, 8, 3, 7, 0, 5):
        assert read_member(path, f"image[{row}]") == read_member(path, f"raw[{row}]") == contents[row]
        assert read_member(path, f"image.bytes[{row}]") == contents[row]
        assert read_member(path, f"text[{row}]") == b"P5 2 2 255\n" + bytes([row]) * 4
    refused(path, "image[9]", r"^the table has no row 9: it has 9, counted from 0$")
    refused(path, "images[0]", r"^the table has no column 'images'.* did you mean 'image'\?")
    refused(path, "label[0]", r"^the cell holds int, expected the bytes of a file$")


def test_batches_of_a_parquet_table_take_bounded_memory(tmp_path):
    contents = [bytes([value]) * 4_000_000 for value in range(60)]
    path = write_parquet(tmp_path / "a.parquet", {"image": contents}, use_dictionary=False, write_batch_size=1)
    del contents
    before = pa.total_allocated_bytes()
    for row in range(60):
        assert read_member(path, f"image[{row}]")[0] == row
        assert pa.total_allocated_bytes() - before < 220_000_000


def test_a_cell_without_content_is_refused(tmp_path):
    columns = {"image": images(picture(1), None), "raw": pa.array([None, b""], pa.binary())}
    columns["other"] = pa.array([{"bytes": None, "path": "a.png"}] * 2, columns["image"].type)
    path = write_parquet(tmp_path / "a.parquet", columns)
    for member in ("image[1]", "raw[0]", "other[0]"):
        refused(path, member, r"^the cell is empty \(null\)$")


def test_a_damaged_parquet_table_is_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"raw": [b"xyz" * 1000]}, compression="none", write_page_checksum=True)
    whole = path.read_bytes()
    assert read_member(path, "raw[0]") == b"xyz" * 1000
    flipped(path, whole.find(b"xyz") + 500)
    refused(path, "raw[0]", r"^column 'raw' cannot be read at row 0 \(.*checksum")
    path.write_bytes(whole[:-20])
    refused(path, "raw[0]", r"^no whole Parquet table \(")


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", {"raw": [b"x"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DatasetError, match=r"pip install 'emofuse\[parquet\]'"):
        read_member(path, "raw[0]")


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("emotion,pixels\n" + "\n".join(f'{row},"{pixels(row, 16)}"' for row in range(4)))
    files = {
        write_zip(tmp_path / "a.zip", FILES): "happy/1.png",
        write_zip(tmp_path / "b.zip", FILES, zipfile.ZIP_STORED): "happy/1.png",
        write_parquet(tmp_path / "a.parquet", {"image": images(*FILES.values())}): "image[1]",
        table: "pixels[1]",
    }
    rng = np.random.default_rng(0)
    for path, member in files.items():
        whole = path.read_bytes()
        reasons = []
        for _ in range(150):
            data = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.2 else whole)
            for place in rng.integers(0, len(data), rng.integers(1, 6)):
                data[place] = rng.integers(0, 256)
            path.write_bytes(data)
            members._index.cache_clear()
            try:
                read_member(path, member)
            except DecodeError as error:
                reasons.append(str(error))
        assert len(reasons) > 10
        assert all(reasons)
        assert "\n" not in "".join(reasons)


def test_a_file_that_was_replaced_is_indexed_again(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": b"1"})
    assert read_member(path, "a") == b"1"
    write_zip(path, {"b": b"22"})
    refused(path, "a", r"^the archive has no member 'a'$")
    assert read_member(path, "b") == b"22"


def test_the_content_says_what_a_file_is_before_its_name_does(tmp_path):
    """Hubs name files by their hashes."""
    assert read_member(write_zip(tmp_path / "4f2a", {"a": b"1"}), "a") == b"1"
    assert read_member(write_parquet(tmp_path / "9c1b", {"raw": [b"2"]}), "raw[0]") == b"2"
    with tarfile.open(tmp_path / "77aa", "w") as archive:
        info = tarfile.TarInfo("a")
        info.size = 1
        archive.addfile(info, BytesIO(b"3"))
    assert read_member(tmp_path / "77aa", "a") == b"3"
