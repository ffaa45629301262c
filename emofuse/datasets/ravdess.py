"""The dataset kind `ravdess`: RAVDESS (Livingstone and Russo, PLoS ONE 2018), speech and song of 24 actors."""

from __future__ import annotations

from typing import ClassVar, Literal

from emofuse.datasets.roots import check_root, open_files
from emofuse.datasets.rows import Listing
from emofuse.datasets.speech_files import NamedFiles, Utterance, check_utterances, find_named_files
from emofuse.specs.datasets import CustomDatasetSpec, DatasetSplitSpec, StratifiedSplit

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_FULL, _VIDEO, _AUDIO = "01", "02", "03"
_PATTERN = r"(0[123])-((0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4]))"


class RavdessSpec(CustomDatasetSpec):
    """RAVDESS: files such as `Actor_01/01-01-03-01-01-01-01.mp4` and `Actor_01/03-01-03-01-01-01-01.wav`.

    The folders may have any names, and sounds any format. `vocal` chooses speech, song or both. `media: both` lists
    clips with sound (01), or clips without (02) with the sound of its file (03), or what there is of the two; `video`
    lists clips and `audio` sound files alone. The group of a row is its actor. Without a split of its own, the split
    is drawn by actor.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: Literal["ravdess"] = "ravdess"
    media: Literal["both", "video", "audio"] = "both"
    vocal: Literal["speech", "song", "all"] = "speech"
    split: DatasetSplitSpec = StratifiedSplit()

    def read(self) -> Listing:
        """List and check the clips and sounds."""
        root = check_root(self.root, self.kind)
        files = open_files(root, follow_links=self.follow_links)
        named = find_named_files(
            files, root, _PATTERN, "RAVDESS", "01-01-03-01-01-01-01.mp4 or 03-01-03-01-01-01-01.wav"
        )
        stems: dict[str, dict[str, str]] = {}  # all but the modality -> modality -> stem
        for stem in named.stems:
            modality, rest = named.matches[stem].group(1, 2)
            stems.setdefault(rest, {})[modality] = stem
        wanted = {rest: each for rest, each in stems.items() if self._is_wanted(rest)}
        utterances = [each for of in wanted.values() if (each := self._utterance(named, of)) is not None]
        lacking = len(wanted) - len(utterances)
        notes = [*named.notes]
        if len(stems) > len(wanted):
            notes.append(f"not of `vocal: {self.vocal}`, left out: {len(stems) - len(wanted)}")
        if lacking:
            notes.append(f"without a file for `media: {self.media}`, left out: {lacking}")
        return check_utterances(self, root, files, utterances, name="RAVDESS", classes=EMOTIONS, notes=notes)

    def _is_wanted(self, rest: str) -> bool:
        return self.vocal == "all" or rest.startswith("01" if self.vocal == "speech" else "02")

    def _utterance(self, named: NamedFiles, stems: dict[str, str]) -> Utterance | None:
        clip = next((named.clips.get(stems[each]) for each in (_FULL, _VIDEO) if stems.get(each) in named.clips), None)
        sound = next((named.sounds[stem] for stem in stems.values() if stem in named.sounds), None)
        path = {"both": clip or sound, "video": clip, "audio": sound}[self.media]
        if path is None:
            return None
        is_silent = clip is not None and stems.get(_FULL) not in named.clips
        stem = next(stem for stem in stems.values() if path in {named.clips.get(stem), named.sounds.get(stem)})
        _, _, vocal, emotion, intensity, statement, repetition, actor = named.matches[stem].groups()
        return Utterance(
            sample_id=stem,
            path=path,
            label=EMOTIONS[int(emotion) - 1],
            speaker=actor,
            audio_path=sound if self.media == "both" and is_silent else None,
            attributes={
                "vocal": "speech" if vocal == "01" else "song",
                "intensity": "normal" if intensity == "01" else "strong",
                "statement": int(statement),
                "repetition": int(repetition),
                "sex": "male" if int(actor) % 2 else "female",
            },
        )
