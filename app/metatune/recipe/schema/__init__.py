"""The shape of a recipe: frozen dataclasses with the defaults of every choice.

A union of dataclasses is told apart by its `kind`. Rules on single values stand in the metadata of
a field (`rule`), rules between fields in `checks`. A recipe that was read is complete: writing
it out again gives a valid recipe with every default spelled out.
"""

from dataclasses import dataclass

from metatune.recipe.rules import SEED, ruled
from metatune.recipe.schema.data import Corruption, Data, Files, HeldOut, Packing, Source
from metatune.recipe.schema.estimators import (
    Auto,
    Checkpoints,
    Estimator,
    Forward,
    ForwardGradient,
    MixFlow,
    Reverse,
    ZerothOrder,
)
from metatune.recipe.schema.inner import (
    SGD,
    Adafactor,
    AdamW,
    Constant,
    Cosine,
    Inner,
    InnerOptimizer,
    Lion,
    Lora,
    Loss,
    Muon,
    Schedule,
    ScheduleFreeAdamW,
    SecondNextToken,
    WarmupStableDecay,
)
from metatune.recipe.schema.model import Chunk, Model
from metatune.recipe.schema.outer import (
    Adam,
    Average,
    Class,
    Descent,
    FinalTest,
    Fresh,
    Full,
    Measure,
    Objective,
    Online,
    Optimizer,
    Outer,
    Phase,
    Population,
    Sign,
    Trajectory,
    Truncated,
    Unroll,
    Validation,
)
from metatune.recipe.schema.trainer import Trainer
from metatune.recipe.schema.tune import (
    Averaging,
    Initialisation,
    Interpolation,
    LearnedUpdate,
    LearningRates,
    LossTerms,
    LossWeights,
    Mixture,
    MlpRater,
    OptimizerFields,
    PerElement,
    Point,
    Rater,
    Shares,
    Sharing,
    TransformerRater,
    Tune,
    TunedField,
    WeightDecay,
)

__all__ = [
    "SGD",
    "Adafactor",
    "Adam",
    "AdamW",
    "Auto",
    "Average",
    "Averaging",
    "Checkpoints",
    "Chunk",
    "Class",
    "Constant",
    "Corruption",
    "Cosine",
    "Data",
    "Descent",
    "Estimator",
    "Files",
    "FinalTest",
    "Forward",
    "ForwardGradient",
    "Fresh",
    "Full",
    "HeldOut",
    "Initialisation",
    "Inner",
    "InnerOptimizer",
    "Interpolation",
    "LearnedUpdate",
    "LearningRates",
    "Lion",
    "Lora",
    "Loss",
    "LossTerms",
    "LossWeights",
    "Measure",
    "MixFlow",
    "Mixture",
    "MlpRater",
    "Model",
    "Muon",
    "Objective",
    "Online",
    "Optimizer",
    "OptimizerFields",
    "Outer",
    "Packing",
    "PerElement",
    "Phase",
    "Point",
    "Population",
    "Rater",
    "Recipe",
    "Reverse",
    "Schedule",
    "ScheduleFreeAdamW",
    "SecondNextToken",
    "Shares",
    "Sharing",
    "Sign",
    "Source",
    "Trainer",
    "Trajectory",
    "TransformerRater",
    "Truncated",
    "Tune",
    "TunedField",
    "Unroll",
    "Validation",
    "WarmupStableDecay",
    "WeightDecay",
    "ZerothOrder",
]


@dataclass(frozen=True)
class Recipe:
    """All that `metatune fit` needs.

    Attributes:
        trainer: who trains; null for metatune itself, here.
        seed: of all that is drawn: parameters, batches, directions. The same recipe with the same
            seed gives the same run; no two seeds share what they draw.
    """

    model: Model
    data: Data
    inner: Inner
    tune: Tune
    outer: Outer
    trainer: Trainer | None = None
    seed: int = ruled(0, SEED)
