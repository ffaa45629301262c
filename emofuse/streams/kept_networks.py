"""Whether the network of a stream is kept on this machine as a compiled one (see `emofuse.streams.networks.kept`)."""

from __future__ import annotations

from typing import Any

from emofuse.specs import StreamSpec
from emofuse.streams.backbones import BackboneSpec, Places365Spec, network_identity
from emofuse.streams.networks.kept import is_kept, network_key
from emofuse.streams.networks.shared_backbones import backbone_key
from emofuse.streams.objects import ObjectsSpec, detector_identity


def is_network_kept(spec: StreamSpec, *, threads: int) -> bool:
    """Return whether a stream can be opened in OpenVINO without making its network in PyTorch.

    Raises:
        WeightsError: its weights are missing.
    """
    if not isinstance(spec, BackboneSpec | Places365Spec | ObjectsSpec):
        return False
    from emofuse.weights import resolve_weights

    identity: dict[str, Any]
    if isinstance(spec, ObjectsSpec):
        if spec.precision != "float32":
            return False
        identity = detector_identity(spec.model, resolve_weights(spec.weights_wanted()))
        return is_kept(network_key(network=identity, threads=threads))
    if isinstance(spec, Places365Spec):
        identity = network_identity("places365", None, resolve_weights(spec.weights))
    elif spec.input == "mel":
        return False
    else:
        identity = network_identity(spec.model, spec.layer, resolve_weights(spec.weights_wanted()))
    return is_kept(backbone_key(identity, None, threads=threads, precision=spec.precision))
