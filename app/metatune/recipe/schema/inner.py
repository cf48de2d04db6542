"""What a recipe says of the inner training: its optimizer, schedule and trained parameters."""

from dataclasses import dataclass
from typing import Final, Literal

from metatune.recipe.rules import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, ruled
from metatune.recipe.schema.optimizer_groups import InnerOptimizerSpec


@dataclass(frozen=True)
class LoraSpec:
    """Low-rank adapters (Hu et al., 2022): `W + (alpha / rank) B A`, W frozen, A and B trained.

    Attributes:
        targets: regular expressions, searched for in checkpoint names: the matrices of the blocks
            that get an adapter.
        rank: of B A.
        alpha: the adapters' weight, over the rank.
    """

    targets: tuple[str, ...]
    rank: int = ruled(8, AT_LEAST_ONE)
    alpha: float = ruled(16.0, POSITIVE)


MULTI_TOKEN_TERM: Final = "auxiliary"
"""The key of that head's term among those of the loss, in tuned.json, metrics and checkpoints.

Files of before have it: it stays, as does the name of the head's tensor.
"""


BALANCE_TERM: Final = "router_balance"
"""The key of the term on how evenly experts are used."""


@dataclass(frozen=True)
class SecondNextTokenSpec:
    """A head that predicts the token two ahead (Gloeckle et al., Multi-token Prediction, 2024).

    Of features h it makes `h + W h`, whose W starts at zero, and the model's own unembedding the
    logits. W, `auxiliary_head.weight`, is trained with the model at a learning rate like any other
    parameter's, whatever `train` and `lora` leave frozen, and isn't in checkpoints of the model.

    Attributes:
        weight: of its cross entropy; only tokens count that are two after one of their document.
    """

    kind: Literal["second_next_token"] = "second_next_token"
    weight: float = ruled(0.3, POSITIVE)


@dataclass(frozen=True)
class LossSpec:
    """Terms of the training loss beside that of the next token, whose own weight is the unit.

    The loss of a token with logits z over a vocabulary of V is `(1 - ε) (-log p_target) + ε mean_v
    (-log p_v) + z_loss (log Σ_v exp z_v)²`. Targets stay a distribution, of sum one, so that
    neither number can stand in for a learning rate. What is held out is measured without them.

    Attributes:
        z_loss: coefficient of the squared logarithm of the softmax's normaliser (Chowdhery et al.,
            PaLM, 2022, section 5); 0 for none.
        label_smoothing: ε, the share of the target's probability that is spread evenly over the
            model's vocabulary (Szegedy et al., 2016, section 7); 0 for none.
        multi_token_prediction: a head whose loss is added, times its weight; null for none.
        router_balance: of a model with experts, coefficient of `E Σ_e f_e P_e` over the tokens of
            all layers and sequences together: f_e is the share of them that chose expert e, P_e
            its mean probability (Fedus et al., Switch Transformers, 2021, equations 4 to 6). It is
            what transformers calls router_aux_loss_coef; 0 for none.
    """

    z_loss: float = ruled(0.0, NOT_NEGATIVE)
    label_smoothing: float = ruled(0.0, FRACTION)
    multi_token_prediction: SecondNextTokenSpec | None = None
    router_balance: float = ruled(0.0, NOT_NEGATIVE)

    def coefficients(self) -> dict[str, float]:
        """The coefficient of each term by its key in files; 0 where there is none."""
        head = self.multi_token_prediction
        return {
            "z_loss": self.z_loss,
            "label_smoothing": self.label_smoothing,
            MULTI_TOKEN_TERM: head.weight if head else 0.0,
            BALANCE_TERM: self.router_balance,
        }


@dataclass(frozen=True)
class InnerSpec:
    """The training that is tuned: `steps` updates of `optimizer`.

    Attributes:
        optimizer: what turns gradients into updates.
        steps: inner steps of a whole training, which the schedules run over.
        micro_batch: sequences of a batch that are computed at a time, their gradients summed: less
            memory, the same update to rounding; null for all. Must divide data.batch_size.
        train: regular expressions, searched for in checkpoint names: the parameters that are
            trained; all others are frozen, those of a fresh model as they are drawn once from the
            recipe's seed. Null for all, or with lora for the adapters alone.
        lora: adapters beside frozen matrices; null for none.
        loss: terms of the training loss beside that of the next token; null for none.
    """

    optimizer: InnerOptimizerSpec
    steps: int = ruled(AT_LEAST_ONE)
    micro_batch: int | None = ruled(None, AT_LEAST_ONE)
    train: tuple[str, ...] | None = None
    lora: LoraSpec | None = None
    loss: LossSpec | None = None
