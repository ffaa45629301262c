"""FER2013 with the votes of FER+ as a folder that the reader of tables reads: images, majority label, votes, split.

    python -m benchmarks.fer2013 --archive PATH --out FOLDER

PATH is a `.npz` with `image` (N, 48, 48) uint8, `row` (N,), `usage` (N,) 0 for Training and 1 for PublicTest, and
`ferplus_votes` (N, 10) in the order of `fer2013new.csv` (Barsoum et al., ICMI 2016). A row gets the emotion with the
most votes. Rows where `unknown` or `NF` has as many votes, or where two emotions share the first place, are left out.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared" / "data"
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=SHARED / "faces48" / "fer2013_part.npz")
    parser.add_argument("--out", type=Path, default=Path("emofuse-runs/fer2013/data"))
    arguments = parser.parse_args()
    print(f"{write_folder(arguments.archive, arguments.out)} images in {arguments.out}")


def write_folder(archive: Path, folder: Path) -> int:
    """Write `images/*.png` and `labels.csv` (image, label, split, votes_<emotion>); return the number of images."""
    with np.load(archive) as parts:
        images, rows, usage, votes = (parts[name] for name in ("image", "row", "usage", "ferplus_votes"))
    votes = votes.astype(np.int64)
    most = votes.max(axis=1)
    clear = ((votes == most[:, None]).sum(axis=1) == 1) & (votes.argmax(axis=1) < len(EMOTIONS))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "split", *(f"votes_{emotion}" for emotion in EMOTIONS)])
        for place in np.flatnonzero(clear).tolist():
            name = f"{int(rows[place]):05}.png"
            Image.fromarray(images[place]).save(folder / "images" / name)
            split = "test" if usage[place] == 1 else "train"
            label = EMOTIONS[int(votes[place].argmax())]
            table.writerow([name, label, split, *votes[place, : len(EMOTIONS)].tolist()])
    return int(clear.sum())


if __name__ == "__main__":
    main()
