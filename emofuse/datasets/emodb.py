"""The dataset kind `emodb`: the Berlin Database of Emotional Speech (Burkhardt et al., Interspeech 2005)."""

from __future__ import annotations

from typing import ClassVar, Literal

from emofuse.datasets.roots import check_root, open_files
from emofuse.datasets.rows import Listing
from emofuse.datasets.speech_files import Utterance, check_utterances, find_named_files
from emofuse.specs.datasets import CustomDatasetSpec, DatasetSplitSpec, StratifiedSplit

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "N": "neutral",
    "T": "sadness",
}
"""The letters of the German words Wut, Langeweile, Ekel, Angst, Freude, neutral and Trauer."""
_MALE = frozenset({"03", "10", "11", "12", "15"})
_PATTERN = r"(03|08|09|1[0-6])([ab]\d\d)([WLEAFNT])([a-z])"


class EmodbSpec(CustomDatasetSpec):
    """EmoDB: files such as `wav/03a01Fa.wav`, 535 utterances of ten speakers.

    The folder may have any name. The group of a row is its speaker. Without a split of its own, the split is drawn by
    speaker.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: Literal["emodb"] = "emodb"
    split: DatasetSplitSpec = StratifiedSplit()

    def read(self) -> Listing:
        """List and check the sounds."""
        root = check_root(self.root, self.kind)
        files = open_files(root, follow_links=self.follow_links)
        named = find_named_files(files, root, _PATTERN, "EmoDB", "03a01Fa.wav")
        utterances = []
        for stem in named.stems:
            if stem not in named.sounds:
                continue
            speaker, text, emotion, version = named.matches[stem].groups()
            attributes = {"text": text, "version": version, "sex": "male" if speaker in _MALE else "female"}
            utterances.append(Utterance(stem, named.sounds[stem], EMOTIONS[emotion], speaker, attributes=attributes))
        return check_utterances(
            self, root, files, utterances, name="EmoDB", classes=tuple(EMOTIONS.values()), notes=named.notes
        )
