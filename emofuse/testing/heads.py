"""The conformance check of heads."""

from __future__ import annotations

from emofuse.specs.heads import HeadSpecBase
from emofuse.testing.faults import raise_faults, spec_faults


def check_head(spec: HeadSpecBase, *, tolerance: float = 1e-4) -> None:
    """Check that a head fulfils the contract of a kind of heads: K heads in one module equal K separate heads.

    The check covers finite logits (K, B, C); the same logits in a group as alone with the same seed, also in different
    folds; a gradient and an axis of heads for every parameter; finite logits of a row without any stream; the same
    logits after a group has shrunk to one head; and a spec that can be pickled.

    Args:
        spec: the spec of the head.
        tolerance: the largest allowed difference of logits, as a share of the largest logit.

    Raises:
        AssertionError: the contract is broken; the message lists every fault.
    """
    faults = spec_faults(spec)
    try:
        faults += _head_faults(spec, tolerance)
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        faults.append(f"it raised {type(error).__name__}: {error}")
    raise_faults(type(spec).__name__, "a head", faults)


_HEAD_DIMS = {"one": 5, "other.stream": 7}


def _head_faults(spec: HeadSpecBase, tolerance: float) -> list[str]:
    import torch

    from emofuse.heads import make_head
    from emofuse.heads.members import HeadBatch, HeadMember, owners, shrink

    one, both = ("one",), tuple(_HEAD_DIMS)
    group = [HeadMember(both, seed=0, fold=0), HeadMember(one, seed=1, fold=0), HeadMember(both, seed=2, fold=1)]
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(2, 6, dim, generator=generator) for name, dim in _HEAD_DIMS.items()}
    valid = {name: torch.ones(2, 6, dtype=torch.bool) for name in _HEAD_DIMS}
    for each in valid.values():
        each[:, 4:] = False  # rows without any stream
    batch = HeadBatch({name: torch.where(valid[name][..., None], rows, 0) for name, rows in features.items()}, valid)
    head = make_head(spec, group, _HEAD_DIMS, 3)
    logits = head(batch)
    if tuple(logits.shape) != (3, 6, 3):
        return [f"logits must be (K, B, C) = (3, 6, 3), got {tuple(logits.shape)}"]
    faults = [] if torch.isfinite(logits).all() else ["logits are not finite"]
    logits.square().sum().backward()
    idle = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    if idle:
        faults.append(f"parameters without a gradient: {', '.join(idle)}")
    lost = sorted(set(head.state_dict()) - set(owners(head)))
    if lost:
        faults.append(f"tensors of no layer with members (an attribute `members`): {', '.join(lost)}")
        return faults
    largest = float(logits.detach().abs().max())
    head.eval()
    together = head(batch).detach()
    for index, member in enumerate(group):
        dims = {name: _HEAD_DIMS[name] for name in member.streams}
        alone = make_head(spec, [HeadMember(member.streams, seed=member.seed)], dims, 3)
        part = HeadBatch(
            {name: batch.features[name][member.fold, None] for name in member.streams},
            {name: batch.valid[name][member.fold, None] for name in member.streams},
        )
        alone.train()
        apart = float((alone(part)[0] - logits[index]).abs().max().detach())
        if apart > tolerance * largest:
            faults.append(f"head {index} of a group differs by {apart:.3g} from the same head alone")
    shrink(head, [1])
    first = HeadBatch({k: v[:1] for k, v in batch.features.items()}, {k: v[:1] for k, v in valid.items()})
    apart = float((head(first)[0] - together[1]).abs().max().detach())
    if apart > tolerance * largest:
        faults.append(f"head 1 differs by {apart:.3g} once its group has shrunk to it")
    return faults
