"""Archives and tables with pictures in them, written on the spot."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image


def picture(value, size=(6, 4)):
    """The bytes of a PNG of one grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0]), value, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def pixels(value, count=2304):
    return " ".join([str(value)] * count)


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_parquet(path, columns, features=None, **options):
    """A table as the library `datasets` writes it; `features` are those of its metadata."""
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, **options)
    return path


def images(*contents):
    """A column of images as `datasets` writes it."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [None if each is None else {"bytes": each, "path": f"{i}.png"} for i, each in enumerate(contents)]
    return pa.array(cells, type=kind)


def flipped(path, place):
    """Flip one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    return path
