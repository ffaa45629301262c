"""The dataset kind `cremad`: CREMA-D (Cao et al., IEEE Trans. Affective Computing 2014), 7,442 clips of 91 actors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from emofuse.datasets.cremad_votes import COLUMNS, read_perceived
from emofuse.datasets.roots import check_root, open_files
from emofuse.datasets.rows import Listing
from emofuse.datasets.speech_files import NamedFiles, Utterance, check_utterances, find_named_files
from emofuse.specs.datasets import CustomDatasetSpec, DatasetSplitSpec, StratifiedSplit

EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral", "SAD": "sadness"}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
_PATTERN = rf"(1\d{{3}})_([A-Z]{{3}})_({'|'.join(EMOTIONS)})_({'|'.join(INTENSITIES)})"


class CremadSpec(CustomDatasetSpec):
    """CREMA-D: files such as `VideoFlash/1001_DFA_ANG_XX.flv` (or .mp4) and `AudioWAV/1001_DFA_ANG_XX.wav`.

    The folders may have any names. The label is the emotion that the actor was asked for; raters perceived it from the
    sound in about 41 % of the clips alone. What they perceived most often, as `processedResults/summaryTable.csv` says,
    is in the attributes `perceived_voice`, `perceived_face` and `perceived_both`: a run learns it by `target: {kind:
    class, column: perceived_both}`. The group of a row is its actor. `media: both` lists the clips, with the sound of
    the WAV file where there is one, and that of the clip elsewhere; `video` lists clips without those files, `audio`
    the WAV files alone. Without a split of its own, the split is drawn by actor.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: Literal["cremad"] = "cremad"
    media: Literal["both", "video", "audio"] = "both"
    split: DatasetSplitSpec = StratifiedSplit()

    def read(self) -> Listing:
        """List and check the clips."""
        root = check_root(self.root, self.kind)
        files = open_files(root, follow_links=self.follow_links)
        named = find_named_files(files, root, _PATTERN, "CREMA-D", "1001_DFA_ANG_XX.flv or 1001_DFA_ANG_XX.wav")
        perceived, votes = read_perceived(root, files)
        utterances = [each for stem in named.stems if (each := self._utterance(named, stem, perceived)) is not None]
        notes = [
            "the labels are the emotions that actors were asked for, which raters did not always perceive",
            *named.notes,
            *left_out(named, {each.sample_id for each in utterances}, self.media),
            *votes,
        ]
        return check_utterances(
            self, root, files, utterances, name="CREMA-D", classes=tuple(EMOTIONS.values()), notes=notes
        )

    def _utterance(
        self, named: NamedFiles, stem: str, perceived: Mapping[str, Mapping[str, str | None]]
    ) -> Utterance | None:
        clip, sound = named.clips.get(stem), named.sounds.get(stem)
        path = {"both": clip or sound, "video": clip, "audio": sound}[self.media]
        if path is None:
            return None
        actor, sentence, emotion, intensity = named.matches[stem].groups()
        return Utterance(
            sample_id=stem,
            path=path,
            label=EMOTIONS[emotion],
            speaker=actor,
            audio_path=sound if self.media == "both" and clip is not None else None,
            attributes={"sentence": sentence, "intensity": INTENSITIES[intensity]}
            | ({name: perceived.get(stem, {}).get(name) for name in COLUMNS.values()} if perceived else {}),
        )


def left_out(named: NamedFiles, listed: set[str], media: str) -> list[str]:
    """Return a note on the samples that have no file of the media that were asked for."""
    missing = [stem for stem in named.stems if stem not in listed]
    return [f"without a file for `media: {media}`, left out: {len(missing)}, first {missing[0]}"] if missing else []
