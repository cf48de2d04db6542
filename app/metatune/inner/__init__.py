"""The inner training of a language model: loss, optimizer, schedule, and the problem they make."""

from metatune.inner.preparing import prepare, prepare_file, rescaled
from metatune.inner.training import InnerTraining

__all__ = ["InnerTraining", "prepare", "prepare_file", "rescaled"]
