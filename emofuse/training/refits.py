"""The second training of a run with `refit: train_val`, on its training and validation rows together."""

from __future__ import annotations

from emofuse.specs import AveragedLogisticHeadSpec, LogisticHeadSpec, RunSpec
from emofuse.training.members import MemberResult


class RefitRun(RunSpec):
    """The second training of one head, which `TrainingData`, plans and the engine treat as a run of its own.

    Its training rows are the training and validation rows of the first training. It keeps the weights of its last
    epoch; no validation row chooses anything. Users do not write it: it follows from a run and its first training.

    Attributes:
        last_epoch: the epoch that the first training chose; None in a plan made before it is known.
    """

    last_epoch: int | None = None

    @classmethod
    def of(cls, head: RunSpec, first: MemberResult | None = None) -> RefitRun:
        """Return the second training of a head.

        Args:
            head: the head of a run (`RunSpec.heads`).
            first: the result of its first training, which decides the number of epochs, or the penalties of logistic
                regressions; None for a plan, which counts all epochs.
        """
        fields = {name: getattr(head, name) for name in RunSpec.model_fields}
        if first is None:
            return cls.model_construct(**fields)
        if isinstance(head.head, LogisticHeadSpec):
            penalty = first.history[first.best_epoch - 1]["penalty"]
            fields["head"] = head.head.model_copy(update={"penalties": (penalty,)})
        elif isinstance(head.head, AveragedLogisticHeadSpec):
            chosen = first.history[first.best_epoch - 1]["penalties"]
            fields["head"] = head.head.model_copy(update={"stream_penalties": tuple(chosen.items())})
        return cls.model_construct(**fields, last_epoch=first.best_epoch)


def epochs_of(spec: RunSpec) -> int:
    """Return the largest number of epochs of a run: a second training has those that were chosen."""
    last = spec.last_epoch if isinstance(spec, RefitRun) else None
    return spec.train.epochs if last is None else last
