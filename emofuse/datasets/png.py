"""PNG files without texts and colour profiles, for libraries that refuse a valid picture because these are large."""

from __future__ import annotations

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OVERHEAD = 12  # length, type and checksum around the data of a chunk
_LONGEST_TEXT = 1 << 20


def without_long_metadata(data: bytes) -> bytes | None:
    """Return the same picture without texts and colour profile, or None if it is no PNG or has neither.

    The pixels, the palette, the transparency and the orientation (EXIF, and XMP that is not compressed) are kept. A
    truncated file stays truncated.
    """
    if not data.startswith(_SIGNATURE):
        return None
    parts = [_SIGNATURE]
    start = len(_SIGNATURE)
    while start + _OVERHEAD <= len(data):
        end = start + _OVERHEAD + int.from_bytes(data[start : start + 4], "big")
        if not _is_left_out(data[start + 4 : start + 8], data[start + 8 : end - 4]):
            parts.append(data[start:end])
        start = end
    kept = b"".join([*parts, data[start:]])
    return kept if len(kept) < len(data) else None


def _is_left_out(kind: bytes, content: bytes) -> bool:
    if kind in {b"zTXt", b"tEXt", b"iCCP"}:
        return True
    if kind != b"iTXt":
        return False
    is_compressed = content.partition(b"\0")[2][:1] == b"\x01"
    return is_compressed or len(content) > _LONGEST_TEXT
