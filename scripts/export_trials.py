"""Trials of scripts/try_exports.py: what stands for a user's own around a README."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from levanter_trials import BY_LEVANTER, LEVANTER, LEVANTER_NEEDS, RAY, side_by_side

LAYER = "model.layers.0."
LLAMA = (
    "model.embed_tokens.weight",
    *(f"{LAYER}self_attn.{x}_proj.weight" for x in "qkvo"),
    *(f"{LAYER}mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    f"{LAYER}input_layernorm.weight",
    f"{LAYER}post_attention_layernorm.weight",
    "model.norm.weight",
)
ADAPTER = tuple(f"base_model.model.{LAYER}self_attn.q_proj.lora_{x}.weight" for x in ("A", "B"))
MODEL = """
import torch, transformers
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, tie_word_embeddings=True))
"""
ROWS = """
tokens = {"code": 2, "drama": 3}
sources = {name: [{"input_ids": [t] + [5] * 7, "labels": [t] + [5] * 7} for _ in range(200)]
           for name, t in tokens.items()}
batch_size = 8
"""
SHARES = """
def shares_hold(rows, per_update):
    # Three standard errors of the share of `code` in each half: 0.75, then 0.25.
    half = len(rows) // 2
    assert len(rows) == STEPS * per_update, len(rows)
    for part, share in ((rows[:half], 0.75), (rows[half:], 0.25)):
        found = sum(row == "code" for row in part) / half
        assert abs(found - share) <= 3 * (share * (1 - share) / half) ** 0.5, (found, share)
"""
PLAIN_LOOP = (
    MODEL
    + ROWS
    + """
batches = [torch.full((2, 8), 5) for _ in range(STEPS)]
def loss(model, batch):
    return model(input_ids=batch, labels=batch).loss
"""
)
VISION = {
    "torchvision/__init__.py": "",
    "torchvision/datasets/__init__.py": "class VisionDataset:\n    pass\n",
    "torchvision/transforms/__init__.py": "",
    "torchvision/transforms/functional.py": "def to_tensor(image):\n    raise OSError\n",
}


AWS = ("boto3", "botocore", "s3transfer", "jmespath", "requests", "urllib3", "idna", "certifi")
"""What loaders of data import even where they read from a disk."""

CLOUD = {
    "cached_path/__init__.py": "def cached_path(*a, **k):\n    raise OSError\n",
    "cached_path/schemes.py": "class SchemeClient:\n    recoverable_errors = ()\n"
    "class S3Client(SchemeClient):\n    pass\n"
    "def add_scheme_client(*a):\n    pass\n",
}
"""Stubs of what reads from clouds."""
TINY = """
import json, torch
from metatune_rates import groups
names = json.load(open("static_rates.json"))["names"]
model = torch.nn.Module()
for name in names:
    *path, last = name.split(".")
    at = model
    for part in path:
        if part not in at._modules:
            at.add_module(part, torch.nn.Module())
        at = at._modules[part]
    at.register_parameter(last, torch.nn.Parameter(torch.ones(2)))
curves = json.load(open("tuned.json"))["learning_rates"]["parameters"]
def agree(own, rate, step):
    (name,) = names[own]
    assert rate == curves[name][step], (own, rate, step)
"""


TEXTS = """
import itertools, json, pathlib
WORDS = {2: "code", 3: "drama"}
for name in WORDS.values():
    path = pathlib.Path("PATH/TO") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((json.dumps({"text": name}) + "\\n") * 50)
class Words:
    bos_id, eos_id = 0, 1
    def encode(self, text, add_bos=True, add_eos=True):
        (token,) = [number for number, word in WORDS.items() if word == text]
        return [0] + [token] * 6 + [1]
"""
"""Files of documents of seven tokens, each of its domain's word, and their tokenizer."""

GRAIN_LOADER = """
import collections
loader = dataloader.build(
    dp_world_size=1, dp_rank=0, tokenizer=Words(), max_context_length=8, num_tokens_per_batch=8)
batches = itertools.islice(loader, 400)
drawn = collections.Counter(WORDS[int(batch[0]["input"].max())] for batch in batches)
assert abs(drawn["code"] / 400 - 0.5) < 0.02, drawn
"""

LLAMA_OF_2 = tuple(
    name.replace("layers.0.", f"layers.{layer}.")
    for name in LLAMA
    for layer in (range(2) if "layers.0." in name else (0,))
)

BESIDE_TORCHTITAN = (
    "tyro",
    "docstring-parser",
    "shtab",
    "typeguard",
    "spmd-types",
    "torchdata",
)
TORCHTITAN_MAIN = "https://github.com/pytorch/torchtitan@b5bcd76c6"


class Trial(NamedTuple):
    """How the README of a target is tried.

    Attributes:
        before: Python that stands for what the user has.
        after: Python that looks at what came of it.
        order: of the README's blocks; None for as they stand.
        packages: from the index, without what they depend on.
        names: parameters of the artefact.
        stubs: files that stand for packages that can't be had.
        version: of the target, where it isn't the first that is known.
        optimizer: settings and names that decay; None for AdamW.
        beside_optax: whether the same is exported to Optax, into a folder of that name.
    """

    before: str = ""
    after: str = ""
    order: tuple[int, ...] | None = None
    packages: tuple[str, ...] = ()
    names: tuple[str, ...] = LLAMA
    stubs: Mapping[str, str] = {}
    version: str | None = None
    optimizer: tuple[Mapping[str, Any], tuple[str, ...]] | None = None
    beside_optax: bool = False


TRIALS = {
    "json": Trial(
        "import metatune_schedule as own\n"
        "own._read()['learning_rates']['parameters']['NAME.OF.A.PARAMETER'] = [1.0] * STEPS\n",
        "assert shares(0, STEPS) == {'code': 0.75, 'drama': 0.25}\n",
    ),
    "csv": Trial(after="assert len(rates) == STEPS and len(rates[0]) == 1 + 11\n"),
    "optax": Trial(
        "import jax.numpy as jnp, json\n"
        "names = json.load(open('tuned.json'))['learning_rates']['parameters']\n"
        "params = {name: jnp.ones(2) for name in names}\ngradients = params\n",
        "assert all(bool((p < 1).all()) for p in params.values())\n",
    ),
    "grain": Trial(
        SHARES + "sources = {n: [{'d': n}] * 50 for n in ('code', 'drama')}\nbatch_size = 40\n",
        "shares_hold([d for batch in dataset for d in batch['d'].tolist()], 40)\n",
    ),
    "torch": Trial(
        PLAIN_LOOP + SHARES,
        "assert schedule.last_epoch == STEPS\n"
        "import json\n"
        "curves = json.load(open('tuned.json'))['learning_rates']['parameters']\n"
        "for g in tuned.param_groups:\n"
        "    assert g['lr'] == curves[g['curve']][-1] and g['betas'] == (0.9, 0.95), g\n"
        "mixed = Mixed({n: [n] * 50 for n in tokens}, STEPS, 40)\n"
        "shares_hold(list(mixed), 40)\n",
        (0, 2),
    ),
    "torch accelerate": Trial(
        PLAIN_LOOP
        + "import accelerate, functools, json\n"
        + "accelerate.Accelerator = functools.partial(accelerate.Accelerator, cpu=True,\n"
        + "    gradient_accumulation_steps=2)\n"
        + "curves = json.load(open('tuned.json'))['learning_rates']['parameters']\n"
        + "used, batches, step = [], 2 * batches, torch.optim.AdamW.step\n"
        + "def noted(self, *a, **k):\n"
        + "    used.append({g['curve']: g['lr'] for g in self.param_groups})\n"
        + "    return step(self, *a, **k)\n"
        + "torch.optim.AdamW.step = noted\n",
        "assert len(used) == STEPS and schedule.last_epoch == STEPS, len(used)\n"
        "for at, rates in enumerate(used):\n"
        "    assert rates == {name: curves[name][at] for name in rates}, at\n",
        (1,),
    ),
    "hf-trainer": Trial(
        MODEL + ROWS,
        "assert trainer.state.global_step == STEPS\n"
        "assert trainer.lr_scheduler.last_epoch == STEPS\n",
        (1, 0),
    ),
    "trl": Trial(
        MODEL
        + ROWS
        + "from peft import LoraConfig, get_peft_model\n"
        + "model = get_peft_model(model, LoraConfig(target_modules=['q_proj'], r=2))\n"
        + "before = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}\n"
        + "from tokenizers import Tokenizer, models\n"
        + "import trl\n"
        + "vocabulary = {'<pad>': 0, '<eos>': 1, 'a': 2}\n"
        + "words = Tokenizer(models.WordLevel(vocabulary, unk_token='<eos>'))\n"
        + "tokenizer = transformers.PreTrainedTokenizerFast(\n"
        + "    tokenizer_object=words, pad_token='<pad>', eos_token='<eos>')\n"
        + "init = trl.SFTTrainer.__init__\n"
        + "def with_tokenizer(self, *a, **k):\n"
        + "    init(self, *a, processing_class=tokenizer, **k)\n"
        + "trl.SFTTrainer.__init__ = with_tokenizer\n"
        + "import functools\n"
        + "trl.SFTConfig = functools.partial(trl.SFTConfig, use_cpu=True, report_to=[])\n",
        "trained = dict(model.named_parameters())\n"
        "assert all(bool((p != trained[n]).any()) for n, p in before.items())\n",
        (1, 0),
        ("peft==0.21.2",),
        ADAPTER,
    ),
    "litdata": Trial(
        SHARES
        + "from litdata.streaming.writer import BinaryWriter\n"
        + "import os\n"
        + "folders = {n: os.path.abspath('data_' + n) for n in ('code', 'drama')}\n"
        + "for n, folder in folders.items():\n"
        + "    os.makedirs(folder)\n"
        + "    writer = BinaryWriter(folder, chunk_size=50)\n"
        + "    for i in range(100):\n"
        + "        writer[i] = {'d': n}\n"
        + "    writer.done()\n"
        + "    writer.merge()\n",
        "shares_hold([d for b in DataLoader(Mixed(sources, STEPS, 40), 40) for d in b['d']], 40)\n",
        packages=("litdata==0.2.76", "lightning-utilities", *AWS),
    ),
    "mosaic-streaming": Trial(
        SHARES
        + "from streaming import MDSWriter\n"
        + "EPOCH_SIZE, BATCH_SIZE = 400, 40\n"
        + "folders = {n: f'PATH/TO/{n}' for n in ('code', 'drama')}\n"
        + "for n, folder in folders.items():\n"
        + "    with MDSWriter(out=folder, columns={'d': 'str'}, size_limit=500) as out:\n"
        + "        for _ in range(400):\n"
        + "            out.write({'d': n})\n",
        "shares_hold([d for b in DataLoader(Mixed(sources, STEPS, 40), 40) for d in b['d']], 40)\n"
        "own = [row['d'] for row in dataset]\n"
        "for at in range(0, 400, 40):\n"
        "    assert sum(d == 'code' for d in own[at : at + 40]) == 20, at\n",
        packages=(
            "mosaicml-streaming==0.13.0",
            "Brotli",
            "zstd",
            "python-snappy",
            "cramjam",
            "catalogue",
            *AWS,
        ),
        stubs=VISION,
    ),
    "torchtitan": Trial(
        TEXTS + "global_batch_size = 40\n",
        TINY
        + SHARES
        + "loader = dataloader.build(\n"
        + "    dp_world_size=1, dp_rank=0, tokenizer=Words(), seq_len=8, local_batch_size=20)\n"
        + "batches = itertools.islice(loader, 2 * STEPS)\n"
        + "drawn = [WORDS[int(row.max())] for batch, _ in batches for row in batch['input']]\n"
        + "shares_hold(drawn, 40)\n"
        + "for source in dataloader.sources:\n"
        + "    data = DATASETS[source.dataset]\n"
        + "    row = next(iter(data.loader(source.dataset_path)))\n"
        + "    assert data.sample_processor(row) == source.dataset.rsplit('_', 1)[1]\n"
        + "optimizer.implementation = 'for-loop'\n"
        + "own = optimizer.build(model_parts=[model])\n"
        + "schedules = lr_scheduler.build(optimizers=own, training_steps=STEPS)\n"
        + "for step in range(STEPS):\n"
        + "    for group in own.optimizers[0].param_groups:\n"
        + "        if len(names[group['tuned']]) == 1:\n"
        + "            (name,) = names[group['tuned']]\n"
        + "            assert abs(group['lr'] / curves[name][step] - 1) < 1e-9\n"
        + "    own.step()\n"
        + "    schedules.step()\n",
        packages=("torchtitan==0.3.0", *BESIDE_TORCHTITAN),
    ),
    "torchtitan main": Trial(
        TEXTS,
        GRAIN_LOADER,
        packages=(f"torchtitan @ git+{TORCHTITAN_MAIN}", "grain==0.2.18", *BESIDE_TORCHTITAN),
        version="main-2026-08-21",
    ),
    "levanter": Trial(
        after=LEVANTER,
        packages=LEVANTER_NEEDS,
        names=LLAMA_OF_2,
        stubs=RAY,
    ),
    "levanter groups": Trial(
        after=BY_LEVANTER,
        packages=LEVANTER_NEEDS,
        names=LLAMA_OF_2,
        stubs=RAY,
        optimizer=side_by_side(LLAMA_OF_2),
        beside_optax=True,
    ),
    "olmo-core": Trial(
        "import numpy as np\n"
        "from olmo_core.data import TokenizerConfig\n"
        "tokenizer = TokenizerConfig(vocab_size=16, eos_token_id=1, pad_token_id=0)\n"
        "paths_of_domains = {'code': ['code.npy'], 'drama': ['drama.npy']}\n"
        "for token, name in ((2, 'code'), (3, 'drama')):\n"
        "    np.array(([token] * 7 + [1]) * 90, np.uint8).tofile(name + '.npy')\n"
        "sequence_length, global_batch_size, work_dir = 8, 8 * 40, 'work'\n",
        TINY
        + "loader.reshuffle(epoch=1)\n"
        + "rows = [row for batch in loader for row in batch['input_ids'].tolist()]\n"
        + "assert len(rows) == 40 * STEPS\n"
        + "for step in range(STEPS):\n"
        + "    code = sum(row[0] == 2 for row in rows[40 * step : 40 * step + 40])\n"
        + "    assert code == (30 if step < STEPS // 2 else 10), (step, code)\n"
        + "from types import SimpleNamespace\n"
        + "own = optim.build(model)\n"
        + "for step in range(STEPS):\n"
        + "    for group in own.param_groups:\n"
        + "        trainer = SimpleNamespace(global_step=step + 1, max_steps=STEPS)\n"
        + "        agree(group['tuned'], scheduler.set_lr(group, trainer), step)\n",
        packages=(
            "ai2-olmo-core==3.0.0",
            "dataclass-extensions",
            "bettermap",
            "omegaconf",
            "antlr4-python3-runtime",
            "importlib-resources",
            "google-cloud-storage",
            "google-api-core",
            "google-auth",
            "google-cloud-core",
            "googleapis-common-protos",
            "proto-plus",
            "google-resumable-media",
            "google-crc32c",
            *AWS,
        ),
        stubs=CLOUD,
    ),
}
"""By target; others have no Python to run, or can't be had without a GPU."""
