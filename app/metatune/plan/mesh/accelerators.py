"""Devices that a plan can be for: what their makers say of each. A new one is a row of `KNOWN`."""

from collections.abc import Mapping
from typing import Final, NamedTuple

USABLE: Final = 0.92
"""Of a device's memory: the rest is the driver's, the runtime's, and lost between arrays."""
UTILISATION: Final = 0.4
"""Of the products that a device can make: what trainings of language models reach, roughly."""


class Accelerator(NamedTuple):
    """A device.

    Attributes:
        name: of it.
        memory_bytes: that it has.
        flops: products and sums of matrices in a second, dense, for operands of a compute type.
        link_bytes: that it sends to others in a second, in one direction.
    """

    name: str
    memory_bytes: int
    flops: Mapping[str, float]
    link_bytes: float

    @property
    def limit_bytes(self) -> int:
        """That arrays may take."""
        return int(USABLE * self.memory_bytes)


class UnknownAccelerator(ValueError):
    """A device that nothing is known of."""


def _gpu(name: str, memory: float, bfloat16: float, tf32: float, link: float) -> Accelerator:
    """GB, TFLOPS (of float32 by TF32, JAX's default), GB/s of NVLink in one direction."""
    flops = {"bfloat16": bfloat16 * 1e12, "float32": tf32 * 1e12}
    return Accelerator(name, int(memory * 1e9), flops, link * 1e9)


def _tpu(name: str, memory: float, bfloat16: float, link: float) -> Accelerator:
    """GB, TFLOPS (also of float32, by JAX's default), GB/s of all links, of which half is sent."""
    flops = {"bfloat16": bfloat16 * 1e12, "float32": bfloat16 * 1e12}
    return Accelerator(name, int(memory * 1e9), flops, link / 2 * 1e9)


# Data sheets of NVIDIA (A100, H100 SXM, H200, B200 in a DGX; without sparsity) and of Google Cloud.
KNOWN: Final = {
    each.name: each
    for each in (
        _gpu("a100-40gb", 40, 312, 156, 300),
        _gpu("a100", 80, 312, 156, 300),
        _gpu("h100", 80, 989, 494, 450),
        _gpu("h200", 141, 989, 494, 450),
        _gpu("b200", 180, 2250, 1125, 900),
        _tpu("v5e", 16, 197, 200),
        _tpu("v5p", 95, 459, 600),
        _tpu("v6e", 32, 918, 448),
    )
}


def accelerator(name: str) -> Accelerator:
    """The device of a name.

    Raises:
        UnknownAccelerator: nothing is known of it.
    """
    found = KNOWN.get(name.lower())
    if found is None:
        raise UnknownAccelerator(f"--device {name}: must be one of {', '.join(KNOWN)}")
    return found
