"""A generated dataset of clips, for machines without data.

Every clip shows three cues, each of which is one bit of its label: a mouth that opens or closes, then a face that
blushes or pales, and a voice that is steady or trembles (`drawing.py`, `voice.py`). The same frames in another order
show the other bit of a cue of the picture, so that neither a frame nor any mean over frames shows one. Cues lie with
known probabilities (`truth.py`). `clips_demo.json` records what each clip shows (`generator.py`), so that results can
be compared with the reachable accuracy.
"""

from emofuse.datasets.clips_demo.generator import clips_demo_info, generate_clips_demo
from emofuse.datasets.clips_demo.truth import reachable_accuracy

__all__ = ["clips_demo_info", "generate_clips_demo", "reachable_accuracy"]
