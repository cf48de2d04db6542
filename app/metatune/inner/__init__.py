"""The inner training of a language model: loss, optimizer, schedule, and the problem they make."""

from metatune.inner.training import InnerTraining, Trajectory, prepare, prepare_file, stretched

__all__ = ["InnerTraining", "Trajectory", "prepare", "prepare_file", "stretched"]
