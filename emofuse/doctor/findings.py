"""The findings of an examination: one line each, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        area: the heading that the line stands under.
        state: `ok`; `note` for something that works but deserves a look; `fault` for something that is needed and is
            missing or broken.
        what: the text of the line.
        advice: what the user can do; "" if there is nothing to do, or if `what` says it.
    """

    area: str
    state: State
    what: str
    advice: str = ""


def guarded(area: str, examine: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of a function, or one fault if it raises: a broken package must not end the examination."""
    try:
        return examine()
    except Exception as error:  # noqa: BLE001 - any error here is a result of the examination
        text = " ".join(str(error).split())
        what = f"could not be examined: {type(error).__name__}: {text}"
        return [Finding(area, "fault", what, "Repair that and the packages above, then run the doctor again")]
