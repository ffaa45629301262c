"""The generator of the demo: it draws the planned samples and writes them in EmoSet's layout, with their truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.datasets.demo import annotators, face, person, scenes, truth
from emofuse.datasets.demo.truth import CLASSES, CUE_VALUES, DemoSample
from emofuse.datasets.generated import draw_all, read_truth, remove_records, write_json, write_once
from emofuse.progress import step

GENERATOR_VERSION = 1  # increased whenever the same images and seed give other files
TRUTH_FILE = "demo.json"
NOUN = "demo dataset"
LONG_SIDE_PX = (384, 560)
ASPECT = (0.75, 1.0)
JPEG_QUALITY = (93, 97)
# EmoSet's words; a smile is happy, a frown is sad. Without a face the attribute is missing, as in EmoSet.
FACIAL_EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise")
EXPRESSION_WORDS = {"smile": "happy", "frown": "sad"}

Image = npt.NDArray[np.uint8]


def generate_demo(root: Path, *, images: int, seed: int) -> None:
    """Write the demo dataset: EmoSet's files and `demo.json`.

    The same `images` and `seed` give the same bytes on one machine. A root that already holds this dataset is not
    changed. An image takes about 20 ms on one core.

    Args:
        root: the folder to make, which must not exist or must be empty.
        images: the number of images N; from 24 on, no split of a label is empty.
        seed: the seed of all random choices, 0 or more.

    Raises:
        DatasetError: `root` holds something else.
    """
    identity = {"generator_version": GENERATOR_VERSION, "images": images, "seed": seed}
    write_once(root, TRUTH_FILE, NOUN, identity, lambda partial: _write_dataset(partial, identity))


def demo_info(root: Path) -> dict[str, Any]:
    """Return the reachable accuracies of a generated demo as plain JSON, as `truth.describe_truth` defines them.

    Raises:
        DatasetError: `root` holds no demo dataset of this version.
    """
    data = read_truth(root, TRUTH_FILE, NOUN, version=GENERATOR_VERSION)
    return truth.describe_truth(data["samples"], data["parameters"]["lies"])


def demo_annotations(root: Path) -> pl.DataFrame:
    """Return the votes, valence and arousal of the rows of a generated demo, see `annotators.draw_annotations`.

    Raises:
        DatasetError: `root` holds no demo dataset.
    """
    data = read_truth(root, TRUTH_FILE, NOUN)
    return annotators.draw_annotations(data["samples"], data["parameters"]["lies"], data["seed"])


def draw_sample(sample: DemoSample, rng: np.random.Generator) -> tuple[Image, dict[str, Any]]:
    """Draw one image.

    A cue that nobody will see (`shown` is None, because the file will be damaged) is drawn with the bit of the label.

    Returns:
        The image, uint8 RGB (H, W, 3), and what was drawn, as plain data: `width`, `height`, `scene`, `look` (None
        without a face).
    """
    bits = {
        cue: bit if sample.shown[cue] is None else sample.shown[cue]
        for cue, bit in truth.true_bits(sample.label).items()
    }
    long_side = int(rng.integers(LONG_SIDE_PX[0], LONG_SIDE_PX[1] + 1))
    short_side = round(long_side * rng.uniform(*ASPECT))
    height, width = (short_side, long_side) if rng.random() < 0.5 else (long_side, short_side)
    scene, picture = scenes.draw_scene(CUE_VALUES["scene"][bits["scene"] or 0], height, width, rng)
    look = None
    if sample.has_face:
        look = person.draw_look(rng, height, width, frown=bits["expression"] == 1, grain=bits["texture"] == 1)
        picture = person.draw_glow(picture, look)
    picture = scenes.add_film_grain(picture, rng)
    if look is not None:
        picture = person.draw_person(picture, look, rng)
    drawn = {"width": width, "height": height, "scene": scene, "look": None if look is None else asdict(look)}
    return np.rint(picture, out=picture).astype(np.uint8), drawn


def _write_dataset(root: Path, identity: Mapping[str, int]) -> None:
    samples = truth.plan_samples(identity["images"], identity["seed"])
    for label in CLASSES:
        (root / "image" / label).mkdir(parents=True, exist_ok=True)
        (root / "annotation" / label).mkdir(parents=True, exist_ok=True)

    def draw(index: int, sample: DemoSample) -> dict[str, Any]:
        # One generator per image, so that the draws of one image do not change the others; index + 1, because the
        # plan's own generator equals one with a trailing 0.
        entropy = [identity["seed"], identity["images"], index + 1]
        rng = np.random.default_rng(entropy)
        image, drawn = draw_sample(sample, rng)
        quality = int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
        (root / _image_path(sample)).write_bytes(_damage(_encode(image, quality), sample, rng))
        write_json(root / _annotation_path(sample), _annotation(sample, image, drawn))
        return {**sample.as_json(), "rng_seed": entropy, "jpeg_quality": quality, **drawn}

    with step("drawing the demo dataset", len(samples), "images") as advance:
        face.plate()  # once, and not in each thread
        records = draw_all(root, samples, draw, advance)
    for split in truth.SPLIT_SHARES:
        rows = [[s.label, _image_path(s), _annotation_path(s)] for s in samples if s.split == split]
        write_json(root / f"{split}.json", rows)
    write_json(root / "info.json", _vocabularies())
    write_json(root / TRUTH_FILE, {**identity, "parameters": _parameters(), "samples": records}, indent=1)
    remove_records(root)


def _image_path(sample: DemoSample) -> str:
    return f"image/{sample.label}/{sample.sample_id}.jpg"


def _annotation_path(sample: DemoSample) -> str:
    return f"annotation/{sample.label}/{sample.sample_id}.json"


def _encode(image: Image, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a JPEG of shape {image.shape}")
    return bytes(data)


def _damage(data: bytes, sample: DemoSample, rng: np.random.Generator) -> bytes:
    """Return the bytes of a file, damaged as planned: without the second half, or replaced by noise."""
    if sample.damage == "truncated":
        return data[: len(data) // 2]
    return rng.bytes(len(data) // 4) if sample.damage == "noise" else data


def _annotation(sample: DemoSample, image: Image, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Return EmoSet's attributes of an image, without those that do not apply."""
    rgb = image[::4, ::4].astype(np.float32)
    # Hasler & Suesstrunk (2003), on whose scale 109 is extremely colourful.
    red_green, yellow_blue = rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    colorfulness = spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    annotation: dict[str, Any] = {
        "emotion": sample.label,
        "brightness": round(float(rgb.max(axis=2).mean()) / 255, 1),
        "colorfulness": min(round(float(colorfulness) / 109, 1), 1.0),
        "scene": drawn["scene"],
    }
    if drawn["look"] is not None:
        annotation["object"] = ["Person"]
        smiles = drawn["look"]["expression"] > 0
        annotation["facial_expression"] = EXPRESSION_WORDS["smile" if smiles else "frown"]
    return annotation


def _vocabularies() -> dict[str, Any]:
    """Return the content of `info.json`: EmoSet's seven vocabularies, with the words that the demo uses."""
    tenths = tuple(f"{step / 10:.1f}" for step in range(11))
    words = {
        "emotion": CLASSES,
        "brightness": tenths,
        "colorfulness": tenths,
        "scene": tuple(name for names in scenes.SCENE_NAMES.values() for name in names),
        "object": ("Person",),
        "facial_expression": FACIAL_EXPRESSIONS,
        "human_action": (),
    }
    return {
        key: {
            "label2idx": {word: index for index, word in enumerate(values)},
            "idx2label": {str(index): word for index, word in enumerate(values)},
        }
        for key, values in words.items()
    }


def _parameters() -> dict[str, Any]:
    """Return the parameters of the plan and the drawing: shares, probabilities and ranges."""
    return {
        "lies": dict(truth.LIES),
        "no_face_share": truth.NO_FACE_SHARE,
        "corrupt_share": truth.CORRUPT_SHARE,
        "min_corrupt": truth.MIN_CORRUPT,
        "split_shares": dict(truth.SPLIT_SHARES),
        "cue_values": {cue: list(values) for cue, values in CUE_VALUES.items()},
        "long_side_px": LONG_SIDE_PX,
        "aspect": ASPECT,
        "jpeg_quality": JPEG_QUALITY,
        "smile": person.SMILE,
        "frown": person.FROWN,
        "shape": person.SHAPE,
        "blotches": person.BLOTCHES,
        "blotch_sigma_px": person.BLOTCH_SIGMA_PX,
        "grain": person.GRAIN,
        "grain_sigma_px": person.GRAIN_SIGMA_PX,
        "brightness": scenes.BRIGHTNESS,
        "film_grain": scenes.FILM_GRAIN,
    }
