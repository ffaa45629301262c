"""Log to TensorBoard: event files below the folder of results, `tensorboard --logdir OUT/tensorboard`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from emofuse.stores import making_folder
from emofuse.tracking.logged import Logged

_COLORS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


class OpenTracker:
    """A folder of event files. The folder of an entry appears whole, and its name ends with its key."""

    def __init__(self, out: Path) -> None:
        self.name = "tensorboard"
        self._folder = out / "tensorboard"
        self.where = f"folder {self._folder}"

    def has(self, key: str) -> bool:
        """Return whether the folder of the entry is there."""
        return any(self._folder.glob(f"*-{key[:16]}"))

    def log(self, entry: Logged) -> None:
        """Write the event file of an entry."""
        name = re.sub(r"[^\w.+-]+", "_", entry.name).strip("_.")[:80]
        self._folder.mkdir(parents=True, exist_ok=True)
        with making_folder(self._folder / f"{name}-{entry.key[:16]}") as partial:
            writer = EventFileWriter(str(partial))
            try:
                for event in _events(entry):
                    writer.add_event(event)
            finally:
                writer.close()


def _events(entry: Logged) -> Iterable[Event]:
    """Yield the events of an entry: parameters, curves by epoch, scores, texts and figures."""
    at = datetime.fromisoformat(entry.created).timestamp() if entry.created else time.time()
    if entry.parameters:
        summary = hparams_pb(dict(entry.parameters), trial_id=entry.key[:16], start_time_secs=at - entry.seconds)
        yield Event(wall_time=at, step=0, summary=summary)
    for name, points in entry.curves.items():
        for epoch, value in points:
            yield Event(wall_time=at, step=epoch, summary=_scalar(f"curves/{name}", value))
    for name, value in entry.metrics.items():
        yield Event(wall_time=at, step=0, summary=_scalar(name, value))
    table = "\n".join(f"- **{name}**: {text}" for name, text in entry.tags.items())
    yield Event(wall_time=at, step=0, summary=_text("tags", table))
    if entry.notes:
        yield Event(wall_time=at, step=0, summary=_text("notes", "\n".join(f"- {note}" for note in entry.notes)))
    for path in entry.files:
        tag = path.relative_to(entry.folder).with_suffix("").as_posix()
        if path.suffix == ".png":
            yield Event(wall_time=at, step=0, summary=_image(tag, path))
        elif path.suffix == ".md":
            yield Event(wall_time=at, step=0, summary=_text(tag, path.read_text(encoding="utf-8")))


def _scalar(tag: str, value: float) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def _text(tag: str, text: str) -> Summary:
    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[text.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    metadata = create_summary_metadata(display_name=tag, description="")
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _image(tag: str, path: Path) -> Summary:
    with Image.open(path) as image:
        width, height, colors = *image.size, _COLORS.get(image.mode, 3)
    picture = Summary.Image(width=width, height=height, colorspace=colors, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=tag, image=picture)])
