"""Language models in Flax, with Hugging Face configs, parameter names, layouts and weights."""

from metatune.models.chunking import map_rows, rows_at_a_time
from metatune.models.experts import Routing, imbalance
from metatune.models.hub import locate
from metatune.models.language_model import LanguageModel, build, config_faults, unembed
from metatune.models.layout import Layout, abstract_mesh_of, mesh_of
from metatune.models.modules import LORA_A, LORA_B
from metatune.models.names import ParameterNames, Shape, layer_numbers, shapes_by_name
from metatune.models.pretrained import CONFIG, load_pretrained, read_config, save_pretrained
from metatune.models.safetensors_files import weights_sha256

__all__ = [
    "CONFIG",
    "LORA_A",
    "LORA_B",
    "LanguageModel",
    "Layout",
    "ParameterNames",
    "Routing",
    "Shape",
    "abstract_mesh_of",
    "build",
    "config_faults",
    "imbalance",
    "layer_numbers",
    "load_pretrained",
    "locate",
    "map_rows",
    "mesh_of",
    "read_config",
    "rows_at_a_time",
    "save_pretrained",
    "shapes_by_name",
    "unembed",
    "weights_sha256",
]
