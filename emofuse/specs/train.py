"""The spec of the optimisation of a head."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emofuse.specs.base import ExtendedSpec
from emofuse.specs.faults import SEPARATOR


def _on_and_off(value: Any) -> Any:
    """Return `on` or `off`, which YAML reads as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Balancing = Annotated[Literal["off", "monitor", "on"], BeforeValidator(_on_and_off)]
OnOff = Annotated[Literal["on", "off"], BeforeValidator(_on_and_off)]
ClassWeights = Literal["none", "balanced", "sqrt", "effective"]
Schedule = Literal["constant", "cosine"]
RowBalance = Literal["none", "views", "sampling"]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]


def _weights_are_an_option_of_their_own(value: Any) -> Any:
    if value == "weights":
        raise ValueError("weights of classes are an option of their own: class_weights: balanced")
    return value


Balance = Annotated[RowBalance, BeforeValidator(_weights_are_an_option_of_their_own)]


class TrainSpec(ExtendedSpec):
    """The optimisation. The defaults are the paper's: Adam, 1e-4, 100 epochs, batch 64, cross-entropy.

    `select` chooses the best epoch on validation rows, whose weights are kept: the one with the least loss, or with the
    highest macro F1 (the paper's choice) or accuracy, of numbers the highest mean concordance correlation (`ccc`), of
    several labels the highest mean average precision (`map`). The loss changes little with the rounding of another
    processor or of a larger group of heads. Macro F1 and accuracy are shares of a few hundred rows, and one row that
    changes sides may move them to another epoch. `patience` epochs without a better one end the run.

    `seed` decides the initial weights and the dropout, `order_seed` the order of rows: runs with the same order are
    comparable batch by batch, and train together.

    `gradient_balancing`: `on` scales the learning rate of every stream's branch so that no stream dominates, `monitor`
    only records the norms of their gradients (see `emofuse.training.balancing`).

    `views` is the number of cached views that training uses: in every epoch each training row shows one of them, drawn
    by the order seed. Validation and test rows always show view 0, the picture itself.

    Options for rare classes, of which heads count the training rows of their fold alone (see
    `emofuse.training.losses`): `class_weights` weights the loss of each row by its class, `focal_gamma` weights it by
    how uncertain the head is, and `logit_adjustment` adds that multiple of the log shares of the classes to the logits
    in training, but not in prediction (kernel ridge regression, which is solved without it, subtracts it in prediction,
    to the same end). Validation loss stays plain: measured as a choice, it beats the weighted
    loss, and no worse than macro F1. Of a distribution, `class_weights` weights rows by their majority; of several
    labels, it weights the rows that have a label against those that have not.

    `balance` evens out the classes by the rows of an epoch in place of weights (see `emofuse.training.row_draws`), on
    the training rows of each fold alone: `sampling` draws rows with replacement, `views` draws rows of rare classes
    from their augmented views beside the pictures themselves, and shows all other classes without augmentation.

    Options of the updates (see `emofuse.training.schedule` and `emofuse.training.averages`): `schedule` lets the
    learning rate fall to 0 over all epochs; `warmup` is the share of all steps in which it rises; `clip_norm` bounds
    the norm of all gradients of a head; `ema` is the decay of the running mean of the weights, which is validated and
    kept in place of the weights. `stream_dropout` is the probability that a head does not see a stream of a training
    row; one stream of each row is always seen (see `emofuse.training.stream_dropout`). `mixup` is alpha: a head trains
    on mixtures of two rows, with shares from Beta(alpha, alpha), and of their losses (see `emofuse.training.mixup`). 0
    switches each of them off.
    """

    added: ClassVar[frozenset[str]] = frozenset(
        ("class_weights", "focal_gamma", "logit_adjustment", "schedule", "warmup", "clip_norm", "ema", "stream_dropout")
    ) | {"mixup", "balance"}
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    optimizer: Optimizer = "adam"
    select: Literal["macro_f1", "accuracy", "loss", "ccc", "map"] = "loss"
    patience: int | None = Field(None, ge=1)
    seed: int = 0
    order_seed: int = 0
    gradient_balancing: Balancing = "off"
    views: int = Field(1, ge=1)
    class_weights: ClassWeights = "none"
    focal_gamma: float = Field(0.0, ge=0)
    logit_adjustment: float = Field(0.0, ge=0)
    schedule: Schedule = "constant"
    warmup: float = Field(0.0, ge=0, le=1)
    clip_norm: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    stream_dropout: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    balance: Balance = "none"

    @model_validator(mode="after")
    def _balance_is_possible(self) -> Self:
        problems = balance_problems(self)
        if problems:
            raise ValueError(SEPARATOR.join(problems))
        return self


def balance_problems(train: TrainSpec) -> list[str]:
    """Return what contradicts the balance of the classes by rows."""
    if train.balance == "none":
        return []
    problems = [
        f"balance: {train.balance} makes the classes of the training rows even, and {option} would correct for them a "
        "second time. Give either"
        for option in OF_CLASS_SHARES
        if getattr(train, option) != TrainSpec.model_fields[option].default
    ]
    if train.balance == "views" and train.views == 1:
        problems.append(
            "balance: views draws rows of rare classes from their augmented views, and `views` is 1. Build the cache "
            "with several views and give their number here, such as `views: 5`, or take balance: sampling"
        )
    return problems


OF_CLASS_SHARES = ("class_weights", "logit_adjustment")
"""The options that correct for the shares of the classes in the training rows."""


NEWER = {name: TrainSpec.model_fields[name].default for name in TrainSpec.model_fields if name in TrainSpec.added}
"""The options of which former versions knew nothing, with their defaults."""
