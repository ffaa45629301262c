"""The faults that every conformance check looks for, and the error that lists all faults."""

from __future__ import annotations

import pickle

from emofuse.specs import Spec, digest
from emofuse.specs.streams import StreamSpecBase
from emofuse.wording import count_of


def spec_faults(spec: Spec) -> list[str]:
    """Return the faults of a spec that must be sent to other processes."""
    faults = []
    try:
        copy = pickle.loads(pickle.dumps(spec))  # noqa: S301 - bytes of this process
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        return [f"the spec cannot be pickled, so no worker can receive it ({error}): define its class in a module"]
    if copy != spec or digest(copy) != digest(spec):
        faults.append("the spec changes when it is pickled")
    if isinstance(spec, StreamSpecBase) and type(spec).version < 1:
        faults.append(f"version must be >= 1, got {type(spec).version}")
    return faults


def raise_faults(name: str, what: str, faults: list[str]) -> None:
    """Raise an error that lists the faults, if there are any.

    Raises:
        AssertionError: there are faults.
    """
    if faults:
        count = count_of(len(faults), "fault")
        raise AssertionError(f"{name} breaks the contract of {what}, {count}: {' | '.join(faults)}")
