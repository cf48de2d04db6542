"""What a recipe will take of each device of a mesh that this machine needn't have."""

from metatune.plan.mesh.accelerators import Accelerator, UnknownAccelerator, accelerator
from metatune.plan.mesh.axes import override
from metatune.plan.mesh.growing import Smallest, smallest
from metatune.plan.mesh.planning import MeshPlan, on_mesh
from metatune.plan.mesh.settling import Settled, settled

__all__ = [
    "Accelerator",
    "MeshPlan",
    "Settled",
    "Smallest",
    "UnknownAccelerator",
    "accelerator",
    "on_mesh",
    "override",
    "settled",
    "smallest",
]
