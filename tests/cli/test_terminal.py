"""Terminals and logs that are not UTF-8: what they cannot show is spelt otherwise, and no command fails for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TEXT = "\u0394 0.1 \u00b1 0.2 \u5e78 caf\u00e9 \udce9"
PROGRAM = f"""
import sys
from emofuse.cli.terminal import make_output_safe
make_output_safe()
for stream in (sys.stdout, sys.stderr):
    print({TEXT!a}, file=stream)
"""


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "Delta 0.1 +/- 0.2 \\u5e78 caf\\xe9 \\udce9"),
        ("latin-1", "Delta 0.1 \u00b1 0.2 \\u5e78 caf\u00e9 \\udce9"),
        ("cp1252", "Delta 0.1 \u00b1 0.2 \\u5e78 caf\u00e9 \\udce9"),
        ("utf-8", "\u0394 0.1 \u00b1 0.2 \u5e78 caf\u00e9 \\udce9"),
    ],
)
def test_what_an_output_cannot_show_is_spelt_otherwise(encoding, shown):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
    assert done.stdout.decode(encoding).strip() == shown
    assert done.stderr.decode(encoding).strip() == shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_command_with_a_table_of_other_letters_ends_well(encoding, tmp_path):
    from PIL import Image

    for place, label in enumerate(("\u5e78\u798f", "caf\u00e9")):
        (tmp_path / label).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), (place, number, 0)).save(tmp_path / label / f"{number}.png")
    program = "from emofuse.cli import main; main()"
    command = [sys.executable, "-c", program, "dataset", "check", "folder", "--data", tmp_path, "--split", "stratified"]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "\\u5e78\\u798f" in done.stdout.decode(encoding)
