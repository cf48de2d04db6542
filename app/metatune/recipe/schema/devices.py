"""What a recipe says of the devices that one training lies on."""

from dataclasses import dataclass

from metatune.recipe.rules import AT_LEAST_ONE, ruled


@dataclass(frozen=True)
class DevicesSpec:
    """A mesh of devices: the product of its axes is how many are used.

    Attributes:
        data: parts of each batch, on devices that hold the same parameters.
        fsdp: parts of each batch, and of parameters, optimizer state and all that is like them,
            which are put together block by block where they are used.
        tensor: parts of the heads, of the features inside an MLP and of the vocabulary.
        members: parts of the directions of `forward` and `forward_gradient`, or of the members of
            a population in one program; each training or tangent lies on data x fsdp x tensor.
    """

    data: int = ruled(1, AT_LEAST_ONE)
    fsdp: int = ruled(1, AT_LEAST_ONE)
    tensor: int = ruled(1, AT_LEAST_ONE)
    members: int = ruled(1, AT_LEAST_ONE)

    @property
    def count(self) -> int:
        """Devices in all."""
        return self.data * self.fsdp * self.tensor * self.members

    @property
    def parts(self) -> int:
        """Parts of a batch."""
        return self.data * self.fsdp
