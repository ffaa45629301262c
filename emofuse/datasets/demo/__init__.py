"""A generated dataset in EmoSet's layout, for machines without data.

Every image shows up to three cues, one bit of its label each: the expression of a real face and the fine texture of
its skin (`face.py`, `person.py`), and the place behind it (`scenes.py`). Cues lie with known probabilities, some images
have no face, a few files are corrupt (`truth.py`). What was done to each image is written to `demo.json`
(`generator.py`), so that results can be held against what is reachable.
"""

from emofuse.datasets.demo.face import warp_expression
from emofuse.datasets.demo.generator import demo_info, generate_demo

__all__ = ["demo_info", "generate_demo", "warp_expression"]
