"""The shape of a recipe: frozen dataclasses with the defaults of every choice.

A union of dataclasses is told apart by its `kind`. Rules on single values stand in the metadata of
a field (`rule`), rules between fields in `checks`. A recipe that was read is complete: writing
it out again gives a valid recipe with every default spelled out.
"""

from dataclasses import dataclass
from typing import Literal

from metatune.recipe.rules import SEED, ruled
from metatune.recipe.schema.base_schedule import (
    ConstantSpec,
    CosineSpec,
    ScheduleSpec,
    WarmupStableDecaySpec,
)
from metatune.recipe.schema.data import (
    CorruptionSpec,
    DataSpec,
    Files,
    HeldOutSpec,
    PackingSpec,
    SourceSpec,
)
from metatune.recipe.schema.devices import DevicesSpec
from metatune.recipe.schema.eigenbasis_optimizer import SoapSpec
from metatune.recipe.schema.estimators import (
    AutoSpec,
    CheckpointsSpec,
    DampingSpec,
    EstimatorSpec,
    ForwardGradientSpec,
    ForwardSpec,
    MixFlowSpec,
    PersistentESSpec,
    ReverseSpec,
    ZerothOrderSpec,
)
from metatune.recipe.schema.inner import InnerSpec, LoraSpec, LossSpec, SecondNextTokenSpec
from metatune.recipe.schema.inner_optimizer import (
    AdafactorSpec,
    AdamHSpec,
    AdamWSpec,
    AdoptSpec,
    LionSpec,
    MuonHSpec,
    MuonSpec,
    ScheduleFreeAdamWSpec,
    SGDSpec,
    SingleOptimizerSpec,
)
from metatune.recipe.schema.model import Chunk, ModelSpec
from metatune.recipe.schema.neuron_optimizer import NorMuonSpec
from metatune.recipe.schema.optimizer_groups import (
    AdafactorGroupSpec,
    AdamHGroupSpec,
    AdamWGroupSpec,
    AdoptGroupSpec,
    GroupsSpec,
    InnerOptimizerSpec,
    LionGroupSpec,
    MuonGroupSpec,
    MuonHGroupSpec,
    NorMuonGroupSpec,
    OptimizerGroupSpec,
    SGDGroupSpec,
    SoapGroupSpec,
    field_of,
    in_groups,
    least,
    number_name,
    peak,
)
from metatune.recipe.schema.outer import (
    AdamSpec,
    Average,
    Class,
    DescentSpec,
    FinalTestSpec,
    FreshSpec,
    FullSpec,
    Measure,
    ObjectiveSpec,
    OnlineSpec,
    OptimizerSpec,
    OuterSpec,
    PhaseSpec,
    PopulationSpec,
    RobustSpec,
    SignalSpec,
    SignSpec,
    TrajectorySpec,
    TruncatedSpec,
    UnrollSpec,
    ValidationSpec,
)
from metatune.recipe.schema.trainer import TrainerSpec
from metatune.recipe.schema.tune import (
    AveragingSpec,
    InitialisationSpec,
    InterpolationSpec,
    LearnedUpdateSpec,
    LearningRatesSpec,
    LossTermsSpec,
    LossWeightsSpec,
    MixtureSpec,
    MlpRaterSpec,
    OptimizerFieldsSpec,
    PerElement,
    PointSpec,
    RaterSpec,
    Shares,
    SharingSpec,
    TransformerRaterSpec,
    TunedFieldSpec,
    TuneSpec,
    WeightDecaySpec,
)

__all__ = [
    "SGDSpec",
    "AdafactorSpec",
    "AdamSpec",
    "AdamHSpec",
    "AdamWSpec",
    "AdoptSpec",
    "AutoSpec",
    "Average",
    "AveragingSpec",
    "CheckpointsSpec",
    "DampingSpec",
    "Chunk",
    "Class",
    "ConstantSpec",
    "CorruptionSpec",
    "CosineSpec",
    "DataSpec",
    "DescentSpec",
    "DevicesSpec",
    "EstimatorSpec",
    "Files",
    "FinalTestSpec",
    "ForwardSpec",
    "ForwardGradientSpec",
    "FreshSpec",
    "FullSpec",
    "HeldOutSpec",
    "InitialisationSpec",
    "InnerSpec",
    "InnerOptimizerSpec",
    "InterpolationSpec",
    "LearnedUpdateSpec",
    "LearningRatesSpec",
    "LionSpec",
    "LoraSpec",
    "LossSpec",
    "LossTermsSpec",
    "LossWeightsSpec",
    "Measure",
    "MixFlowSpec",
    "MixtureSpec",
    "MlpRaterSpec",
    "ModelSpec",
    "MuonHSpec",
    "MuonSpec",
    "NorMuonGroupSpec",
    "NorMuonSpec",
    "ObjectiveSpec",
    "OnlineSpec",
    "OptimizerSpec",
    "OptimizerFieldsSpec",
    "OuterSpec",
    "PackingSpec",
    "PerElement",
    "PhaseSpec",
    "PersistentESSpec",
    "PointSpec",
    "PopulationSpec",
    "RaterSpec",
    "Recipe",
    "ReverseSpec",
    "RobustSpec",
    "ScheduleSpec",
    "ScheduleFreeAdamWSpec",
    "SecondNextTokenSpec",
    "Shares",
    "SharingSpec",
    "SignSpec",
    "SignalSpec",
    "SoapGroupSpec",
    "SoapSpec",
    "SourceSpec",
    "TrainerSpec",
    "TrajectorySpec",
    "TransformerRaterSpec",
    "TruncatedSpec",
    "TuneSpec",
    "TunedFieldSpec",
    "UnrollSpec",
    "ValidationSpec",
    "WarmupStableDecaySpec",
    "WeightDecaySpec",
    "AdafactorGroupSpec",
    "AdamHGroupSpec",
    "AdamWGroupSpec",
    "AdoptGroupSpec",
    "GroupsSpec",
    "LionGroupSpec",
    "MuonGroupSpec",
    "MuonHGroupSpec",
    "OptimizerGroupSpec",
    "SGDGroupSpec",
    "SingleOptimizerSpec",
    "field_of",
    "in_groups",
    "least",
    "number_name",
    "peak",
    "ZerothOrderSpec",
]


@dataclass(frozen=True)
class Recipe:
    """All that `metatune fit` needs.

    Attributes:
        trainer: who trains; null for metatune itself, here.
        devices: the devices that trainings lie on. `auto` for as many of this machine's as
            divide all batches, along `data`, with the smallest `fsdp` that fits where one device is
            too small; for one where directions or members are spread over devices.
        seed: of all that is drawn: parameters, batches, directions. The same recipe with the same
            seed gives the same run; no two seeds share what they draw.
    """

    model: ModelSpec
    data: DataSpec
    inner: InnerSpec
    tune: TuneSpec
    outer: OuterSpec
    trainer: TrainerSpec | None = None
    devices: DevicesSpec | Literal["auto"] = "auto"
    seed: int = ruled(0, SEED)
