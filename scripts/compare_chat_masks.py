"""Compares the tokens that count as answers with those of transformers, over random chats.

For each chat template of TRL's training variants (they mark what the model writes), the tokens of
class completion are compared with `return_assistant_tokens_mask`. Then the marks are taken out of
the template, and what is found turn by turn, without marks, is compared with the same mask.

    python scripts/compare_chat_masks.py --chats 10000

What TRL marks in `qwen2_5_training` begins with the line break of the header, which the model is
given: turn by turn, answers begin behind it, so that there all chats differ without marks.

Needs the test extra (TRL). Exits with 1 if a template with marks disagrees anywhere.
"""

import argparse
import random
import re
import string
import sys
import tempfile
from datetime import date
from importlib import resources
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from metatune.data import shipped_text, tokenizer_of
from metatune.data.encoded import encoded
from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.sources.chat import conversation
from metatune.data.sources.records import Location, Record, TokenClass
from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import DataSpec, SourceSpec

TEMPLATES = (
    "qwen3_training",
    "llama3_training",
    "phi3_training",
    "gemma_training",
    "qwen2_5_training",
    "cohere2_training",
    "lfm2_training",
)
PLACE = Location("data.domains.d.jsonl", "random")
MARKS = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
SPECIAL = re.compile(r"<\|?[A-Za-z_0-9]+\|?>")


def folder_of(place: Path, template: str) -> str:
    """A byte-level BPE with the special tokens that a template writes, in a new folder."""
    from transformers import PreTrainedTokenizerFast

    special = sorted({*SPECIAL.findall(template), "<eos>", "<bos>"})
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([shipped_text("prose_austen")[:50_000]], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", bos_token="<bos>")
    fast.chat_template = template
    folder = place / f"tokenizer{len(list(place.iterdir()))}"
    fast.save_pretrained(folder)
    return str(folder)


def encoder_of(place: Path, template: str) -> PretrainedTokenizer:
    """The tokenizer of a new folder, with a template."""
    folder = folder_of(place, template)
    data = DataSpec({"d": SourceSpec(path="-")}, {"d": 1.0}, 8, 1, tokenizer=folder)
    found = tokenizer_of(data, today=date(2026, 3, 1))
    assert isinstance(found, PretrainedTokenizer)
    return found


def unmarked(tag: re.Match) -> str:
    """What stands in place of a mark, with the blanks around it as they were."""
    return f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}"


def random_text(draw: random.Random) -> str:
    """A text of a few words, with the oddities that templates look for."""
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(1, 6))) for _ in range(4)]
    odd = ["", "\n", "  ", "é漢", "🙂", "Yes.", "[", "<", "#", "\n\n", "assistant", "user"]
    text = "".join(draw.choice([" ", "\n", ""]) + word for word in [*words, draw.choice(odd)])
    return draw.choice(["Yes.", "Yes.", text, text, text + "\n", " " + text])


def random_chat(draw: random.Random, system: bool) -> list[dict[str, str]]:
    """Turns of user and assistant in exchange, perhaps with the system's before them."""
    chat = []
    if system and draw.random() < 0.5:
        chat.append({"role": "system", "content": random_text(draw)})
    for _ in range(draw.randint(1, 4)):
        chat.append({"role": "user", "content": random_text(draw)})
        answer = random_text(draw)
        if draw.random() < 0.4:
            answer = f"<think>\n{random_text(draw)}\n</think>\n\n{answer}"
        chat.append({"role": "assistant", "content": answer})
    if draw.random() < 0.2:
        chat.append({"role": "user", "content": random_text(draw)})
    return chat


def found(encoder: PretrainedTokenizer, chat: list[dict[str, str]]) -> list[int]:
    """Which tokens count as completion."""
    text, spans = conversation(encoder, chat, PLACE)
    (document,) = encoded([Record(text, spans, rendered=True)], encoder, True)
    (placed,) = encoder.place_batch([text])
    assert document.classes is not None
    classes = document.classes[: len(placed.ids)]  # without the end that it may be given
    return (classes == TokenClass.COMPLETION).astype(int).tolist()


def main() -> int:
    """Prints a line for each template; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--chats", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    worst = 0
    with tempfile.TemporaryDirectory() as place:
        for name in TEMPLATES:
            marked = (resources.files("trl") / f"chat_templates/{name}.jinja").read_text("utf-8")
            with_marks = encoder_of(Path(place), marked)
            without = encoder_of(Path(place), MARKS.sub(unmarked, marked))
            draw = random.Random(f"{chosen.seed}{name}")
            wrong = open_ = other = 0
            for _ in range(chosen.chats):
                chat = random_chat(draw, system="not supported" not in marked)
                mask = with_marks.fast.apply_chat_template(
                    chat, return_dict=True, return_assistant_tokens_mask=True
                )["assistant_masks"]
                wrong += found(with_marks, chat) != mask
                try:
                    other += found(without, chat) != mask
                except RecipeError:
                    open_ += 1
            print(
                f"{name:<20} {chosen.chats} chats: {wrong} differ from transformers; without "
                f"marks {other} differ and {open_} are refused",
                flush=True,
            )
            worst = max(worst, wrong)
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
