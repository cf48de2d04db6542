"""Language models in Flax, with Hugging Face configs, parameter names and layouts."""

from metatune.models.chunking import map_rows, rows_at_a_time
from metatune.models.language_model import LanguageModel, build, config_faults, unembed
from metatune.models.names import ParameterNames

__all__ = [
    "LanguageModel",
    "ParameterNames",
    "build",
    "config_faults",
    "map_rows",
    "rows_at_a_time",
    "unembed",
]
