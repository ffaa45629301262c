"""Networks that several streams of one extractor share.

Two streams may store two outputs of one network: its pooled vector and its map, or two of its layers. Within
`sharing_networks` such streams receive one network, which then runs once for all of them on every batch of samples. A
stream that is made outside has its networks for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

Network = TypeVar("Network")

_MADE: ContextVar[dict[Hashable, Any] | None] = ContextVar("emofuse_made_networks", default=None)


@contextmanager
def sharing_networks() -> Iterator[None]:
    """Let the streams that are made inside the context share their networks."""
    token = _MADE.set({})
    try:
        yield
    finally:
        _MADE.reset(token)


def shared_network(key: Hashable, make: Callable[[], Network]) -> Network:
    """Return the network of this key that an earlier stream of the context has made, or else make it.

    Args:
        key: what decides the values that the network computes: its architecture, weights, precision and device.
        make: makes the network.
    """
    made = _MADE.get()
    if made is None:
        return make()
    if key not in made:
        made[key] = make()
    return cast("Network", made[key])
