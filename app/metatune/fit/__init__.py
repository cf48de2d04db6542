"""The outer loop: follows hypergradients, keeps the best, measures the result."""

from metatune.fit.failure import NotFinite
from metatune.fit.outer_loop import Outcome, fit
from metatune.fit.run_folder import RunFolderError

__all__ = ["NotFinite", "Outcome", "RunFolderError", "fit"]
