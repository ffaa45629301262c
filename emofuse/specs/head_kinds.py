"""The specs of emofuse's own heads.

A head's module stands in `emofuse.heads`, which loads torch. Reading a pipeline must not, so the spec stands here and
names the class of its module. Adding a head takes its spec in this file and its module in `emofuse.heads`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from emofuse.specs.heads import HeadSpecBase, NetworkHeadSpec


class ConcatHeadSpec(NetworkHeadSpec):
    """The paper's head: project and normalise each stream, concatenate, hidden layers with ReLU, softmax."""

    module_class: ClassVar[str] = "concat.ConcatHead"

    kind: Literal["concat"] = "concat"
    embed_dim: int = Field(512, ge=1)
    depth: int = Field(2, ge=0, le=8)
    width: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class LinearHeadSpec(NetworkHeadSpec):
    """A probe: the logits are the sum of one linear map for each stream."""

    module_class: ClassVar[str] = "linear.LinearHead"

    kind: Literal["linear"] = "linear"
    dropout: ClassVar[float] = 0.0


class GatedHeadSpec(NetworkHeadSpec):
    """The paper's head with a gate for each stream: all embeddings together decide the weight of each one."""

    module_class: ClassVar[str] = "gated.GatedHead"

    kind: Literal["gated"] = "gated"
    embed_dim: int = Field(512, ge=1)
    gate_dim: int = Field(64, ge=1)
    depth: int = Field(2, ge=0, le=8)
    width: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class LateHeadSpec(NetworkHeadSpec):
    """Late fusion: a separate head for each stream, and the average of their probabilities with learned weights."""

    module_class: ClassVar[str] = "late.LateHead"

    kind: Literal["late"] = "late"
    embed_dim: int = Field(512, ge=1)
    depth: int = Field(1, ge=0, le=8)
    width: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)


class AttentionHeadSpec(NetworkHeadSpec):
    """Streams as tokens: one or two transformer layers over a learned token and the streams, then its logits."""

    module_class: ClassVar[str] = "attention.AttentionHead"

    kind: Literal["attention"] = "attention"
    embed_dim: int = Field(256, ge=1)
    depth: int = Field(1, ge=1, le=2)
    attention_heads: int = Field(4, ge=1)
    width: int = Field(512, ge=1, description="width of the hidden layer inside a transformer layer")
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_the_embedding(self) -> Self:
        if self.embed_dim % self.attention_heads:
            raise ValueError(
                f"embed_dim must be a multiple of attention_heads, got {self.embed_dim} and {self.attention_heads}"
            )
        return self


def _above_zero(penalties: tuple[float, ...]) -> tuple[float, ...]:
    if min(penalties) <= 0:
        raise ValueError(f"must all be above 0, got {min(penalties):g}")
    return penalties


Penalties = Annotated[
    tuple[float, ...],
    Field(min_length=1, description="the penalties to solve for, each above 0"),
    AfterValidator(_above_zero),
]
LOGISTIC_PENALTIES = (1e-1, 1.0, 1e1, 3e1, 1e2, 3e2, 1e3, 3e3, 1e4, 1e5)


class LogisticHeadSpec(HeadSpecBase):
    """Multinomial logistic regression on the concatenated streams, solved to convergence for every penalty.

    The validation rows choose the penalty by `train.select`, and `train.class_weights` weights the training rows; the
    rest of `train` has no effect. A penalty is 1 / C of scikit-learn's `LogisticRegression`, on standardised features.
    """

    module_class: ClassVar[str] = "linear.LinearHead"

    kind: Literal["logistic"] = "logistic"
    penalties: Penalties = LOGISTIC_PENALTIES
    dropout: ClassVar[float] = 0.0

    def sizes(self) -> dict[str, Any]:
        """Return no arguments: a linear module has no sizes, and the penalties belong to the solver."""
        return {}


class AveragedLogisticHeadSpec(HeadSpecBase):
    """One multinomial logistic regression for each stream, and the plain mean of their probabilities.

    Each regression is solved on the training rows that have its stream. The validation rows that have it choose its
    penalty by `train.select`, and `train.class_weights` weights the training rows; the rest of `train` has no effect. A
    row has the mean over the streams that it has.
    """

    module_class: ClassVar[str] = "averaged_logistic.AveragedLogisticHead"

    kind: Literal["averaged_logistic"] = "averaged_logistic"
    penalties: Penalties = LOGISTIC_PENALTIES
    stream_penalties: tuple[tuple[str, Annotated[float, Field(gt=0)]], ...] = Field(
        (), description="pairs of a stream and its penalty, where it is not to be chosen"
    )
    dropout: ClassVar[float] = 0.0

    def penalties_of(self, stream: str) -> tuple[float, ...]:
        """Return the penalties to solve for a stream."""
        fixed = dict(self.stream_penalties).get(stream)
        return self.penalties if fixed is None else (fixed,)

    def sizes(self) -> dict[str, Any]:
        """Return no arguments: a linear module has no sizes, and the penalties belong to the solver."""
        return {}


class KernelRidgeHeadSpec(HeadSpecBase):
    """Kernel ridge regression on the mean of the streams' kernels, with the penalty of the best leave-one-out fit.

    The width of `rbf` follows from the median distance of training rows; `factor` multiplies its sharpness. With more
    than `landmarks` training rows, that many of them approximate the kernel (Nystroem).

    Of `train`, only `logit_adjustment` has an effect: the logits less that multiple of the log shares of the classes
    predict as if these were more equally frequent, for a higher macro F1 where some are rare.
    """

    kind: Literal["kernel_ridge"] = "kernel_ridge"
    kernel: Literal["rbf", "linear", "cosine"] = "rbf"
    factor: float = Field(1.0, gt=0)
    penalties: int = Field(25, ge=1, description="the number of penalties to try, evenly spaced in their logarithm")
    landmarks: int = Field(4096, ge=2)
    dropout: ClassVar[float] = 0.0


EXACT_HEADS = ("logistic", "averaged_logistic", "kernel_ridge")
"""The kinds of heads that are solved and not trained: they have penalties in place of epochs."""
LOGISTIC_HEADS = (LogisticHeadSpec, AveragedLogisticHeadSpec)
"""The solved heads that weight their rows by `train.class_weights`."""
