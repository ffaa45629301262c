"""A generated dataset in EmoSet's layout, for machines without data.

Every image shows up to three cues, each of which is one bit of its label: the expression of a real face and the fine
texture of its skin (`face.py`, `person.py`), and the place behind it (`scenes.py`). Cues lie with known probabilities,
some images have no face, and a few files are corrupt (`truth.py`). `demo.json` records what was drawn in each image
(`generator.py`), so that results can be compared with the reachable accuracy. Votes, valence and arousal follow from
the cues (`annotators.py`).
"""

from emofuse.datasets.demo.face import warp_expression
from emofuse.datasets.demo.generator import demo_annotations, demo_info, generate_demo

__all__ = ["demo_annotations", "demo_info", "generate_demo", "warp_expression"]
