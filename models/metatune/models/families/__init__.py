"""The families: a file for each, and the table of all."""

from collections.abc import Mapping

from metatune.models.families.gemma import GEMMA
from metatune.models.families.gemma2 import GEMMA2
from metatune.models.families.gemma3 import GEMMA3
from metatune.models.families.gpt2 import GPT2
from metatune.models.families.gpt_neox import GPT_NEOX
from metatune.models.families.gpt_oss import GPT_OSS
from metatune.models.families.granite import GRANITE
from metatune.models.families.llama import LLAMA
from metatune.models.families.ministral3 import MINISTRAL3
from metatune.models.families.mistral import MISTRAL
from metatune.models.families.nanochat import NANOCHAT
from metatune.models.families.olmo2 import OLMO2
from metatune.models.families.olmo3 import OLMO3
from metatune.models.families.olmoe import OLMOE
from metatune.models.families.phi3 import PHI3
from metatune.models.families.qwen2 import QWEN2
from metatune.models.families.qwen3 import QWEN3
from metatune.models.families.qwen3_moe import QWEN3_MOE
from metatune.models.families.smollm3 import SMOLLM3
from metatune.models.family import Family

FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        LLAMA,
        SMOLLM3,
        MISTRAL,
        MINISTRAL3,
        QWEN2,
        QWEN3,
        GEMMA,
        GEMMA2,
        GEMMA3,
        OLMO2,
        OLMO3,
        GRANITE,
        PHI3,
        QWEN3_MOE,
        OLMOE,
        GPT_OSS,
        GPT2,
        GPT_NEOX,
        NANOCHAT,
    )
}
"""By `model_type`; a new family is a new file and a new row."""
