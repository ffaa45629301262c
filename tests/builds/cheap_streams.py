"""Streams of a few lines for tests of the build. In a module of their own, so that workers can import them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.status import Status
from emofuse.streams.base import NEEDS_FACE, NEEDS_IMAGE, Rows, Sample

DELAY = "EMOFUSE_TEST_DELAY_S"


class MeanColourSpec(CustomStreamSpec):
    kind: Literal["mean_colour"] = "mean_colour"
    scale: float = 1.0

    def make(self, device: str) -> MeanColour:
        return MeanColour(self.scale)


class MeanColour:
    """Mean red, green and blue of each picture; takes as long as the environment says."""

    shape = (3,)
    dimensions = ("feature",)
    dtype = np.dtype("float32")
    needs = NEEDS_IMAGE
    flag_names = ()
    columns = ("red", "green", "blue")

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def extract(self, samples: Sequence[Sample]) -> Rows:
        time.sleep(float(os.environ.get(DELAY, "0")))
        rows = Rows.ok(np.zeros((len(samples), 3), dtype=np.float32))
        for row, sample in enumerate(samples):
            rows.features[row] = sample.image.mean(axis=(0, 1)) * self.scale
        return rows

    def close(self) -> None:
        pass


class SizeSpec(CustomStreamSpec):
    kind: Literal["size"] = "size"
    dtype: Literal["float16", "float32"] = "float16"

    def make(self, device: str) -> Size:
        return Size()


class Size:
    """Width and height; flags wide pictures."""

    shape = (2,)
    dimensions = ("feature",)
    dtype = np.dtype("float32")
    needs = NEEDS_IMAGE
    flag_names = ("wide",)
    columns = ("width", "height")

    def extract(self, samples: Sequence[Sample]) -> Rows:
        rows = Rows.ok(np.zeros((len(samples), 2), dtype=np.float32))
        for row, sample in enumerate(samples):
            height, width = sample.image.shape[:2]
            rows.features[row] = width, height
            rows.flags[row] = width > height
        return rows

    def close(self) -> None:
        pass


class NothingSeenSpec(CustomStreamSpec):
    """Detects nothing in any picture and fails on that of row 12."""

    kind: Literal["nothing_seen"] = "nothing_seen"

    def make(self, device: str) -> NothingSeen:
        return NothingSeen(needs=type(self).needs)


class NoFaceSeenSpec(NothingSeenSpec):
    """The same, and says that it looks for faces."""

    needs: ClassVar[frozenset[str]] = NEEDS_FACE
    kind: Literal["no_face_seen"] = "no_face_seen"


class NothingSeen(Size):
    def __init__(self, *, needs: frozenset[str]) -> None:
        self.needs = needs

    def extract(self, samples: Sequence[Sample]) -> Rows:
        rows = [int(sample.image[0, 0, 0]) for sample in samples]
        if 12 in rows:
            raise ZeroDivisionError("row 12")
        return Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)


class FlakyStoreSpec(CustomStreamSpec):
    """Sizes; and from when it is opened every tenth write of its process to a disk fails."""

    kind: Literal["flaky_store"] = "flaky_store"
    dtype: Literal["float16", "float32"] = "float16"

    def make(self, device: str) -> Size:
        import errno

        from zarr.storage import LocalStore

        write = LocalStore.set
        calls = []

        async def fail_sometimes(store: LocalStore, *arguments: object) -> None:
            calls.append(1)
            if len(calls) % 10 == 0:
                raise OSError(errno.EIO, "the tenth write")
            await write(store, *arguments)

        LocalStore.set = fail_sometimes
        return Size()


FLAKY = "EMOFUSE_TEST_FLAKY"


class FlakySpec(CustomStreamSpec):
    """Mean colours, but fails on the rows that the environment says."""

    kind: Literal["flaky"] = "flaky"

    def make(self, device: str) -> Flaky:
        return Flaky(1.0)


class Flaky(MeanColour):
    def extract(self, samples: Sequence[Sample]) -> Rows:
        for sample in samples:
            if str(sample.image[0, 0, 0]) in os.environ.get(FLAKY, "").split(","):
                raise ZeroDivisionError("as the environment says")
        return super().extract(samples)


OPENED = "EMOFUSE_TEST_OPENED"
MISBEHAVING = "EMOFUSE_TEST_MISBEHAVING"


class DeadlySpec(CustomStreamSpec):
    """At the picture with this much red it does something to its process, or raises for the whole block."""

    kind: Literal["deadly"] = "deadly"
    red: int
    how: Literal[
        "kill",
        "kill in company",
        "kill when opened",
        "kill when first opened",
        "kill worker",
        "kill worker when opened",
        "segfault",
        "abort",
        "exit",
        "sleep",
        "slow",
        "hang",
        "hang when read",
        "allocate",
        "print",
        "raise",
    ] = "kill"

    def make(self, device: str) -> Deadly:
        match self.how:
            case "kill when opened":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang when read":
                read = Path.read_bytes
                Path.read_bytes = lambda file: time.sleep(600) if file.stem == str(self.red) else read(file)
            case "kill worker when opened":
                os.kill(os.getppid(), signal.SIGKILL)
            case "kill when first opened" if not Path(os.environ[OPENED]).exists():
                Path(os.environ[OPENED]).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return Deadly(self.red, self.how)


class Deadly(MeanColour):
    opened = 0

    def __init__(self, red: int, how: str) -> None:
        super().__init__(1.0)
        self.red = red
        self.how = how
        Deadly.opened += 1

    def close(self) -> None:
        Deadly.opened -= 1

    def extract(self, samples: Sequence[Sample]) -> Rows:
        if self.how == "slow":
            time.sleep(0.3 * len(samples))
        elif any(sample.image[0, 0, 0] == self.red for sample in samples):
            self._misbehave()
        return super().extract(samples)

    def _misbehave(self) -> None:
        if MISBEHAVING in os.environ:
            Path(os.environ[MISBEHAVING]).touch()
        match self.how:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill in company" if Deadly.opened > 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill worker":
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(600)
            case "segfault":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "exit":
                os._exit(3)
            case "sleep":
                time.sleep(600)
            case "print":
                os.write(1, b"hello from native code\n")
            case "hang":
                ctypes.PyDLL(None).sleep(600)  # native code that does not let go of the interpreter
            case "allocate":
                taken = []
                for _ in range(60):  # 3 GB in 3 s
                    taken.append(np.ones(50_000_000, dtype=np.uint8))
                    time.sleep(0.05)
            case "raise":
                from emofuse.errors import StreamError

                raise StreamError("the wrong shade of red")
