"""What an examination finds: one line each, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: under which heading it stands.
        state: `ok`; `note`: it works, but look; `fault`: something that is needed is missing or broken.
        what: was found.
        advice: what to do; "" if nothing, or if `what` says it.
    """

    area: str
    state: State
    what: str
    advice: str = ""


def guarded(area: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What a look gives, or that it could not be taken: a broken package must not end the examination."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - whatever is broken here is what is to be reported
        text = " ".join(str(error).split())
        what = f"could not be looked at: {type(error).__name__}: {text}"
        return [Finding(area, "fault", what, "Mend that, and what is said of packages, then ask again")]
