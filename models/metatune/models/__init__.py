"""Language models in Flax, with Hugging Face configs, parameter names and layouts."""

from metatune.models.language_model import LanguageModel, build, config_faults
from metatune.models.names import ParameterNames

__all__ = ["LanguageModel", "ParameterNames", "build", "config_faults"]
