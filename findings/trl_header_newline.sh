#!/usr/bin/env bash
# TRL ships training variants of chat templates, which mark what counts as the assistant's tokens.
# A ChatML header is "<|im_start|>assistant\n", and generation starts behind its line break. The
# variant of Qwen 2.5 counts that line break as generated, the one of Qwen 3 doesn't: one more token
# of each answer is trained on, which the prompt of a generation always holds already.
#
#   seen (trl 1.16.0, transformers 5.24.0): qwen2_5 marks '\nFour.<|im_end|>\n',
#                                           qwen3 marks '<think>\n\n</think>\n\nFour.<|im_end|>\n'
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "transformers==5.24.0" "jinja2>=3.1.6"
python3 -m pip install -q --disable-pip-version-check --no-deps --target "$place" "trl==1.16.0"
PLACE="$place" PYTHONPATH="$place" python3 - 2>/dev/null <<'P'
import os
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

chat = [{"role": "user", "content": "Two times two?"}, {"role": "assistant", "content": "Four."}]
begins = {}
for name in ("qwen2_5", "qwen3"):
    file = Path(os.environ["PLACE"]) / f"trl/chat_templates/{name}_training.jinja"
    (text,), (marks,) = render_jinja_template(
        [chat], chat_template=file.read_text("utf-8"), return_assistant_tokens_mask=True
    )
    (prompt,), _ = render_jinja_template(
        [chat[:1]], chat_template=file.read_text("utf-8"), add_generation_prompt=True
    )
    ((begin, end),) = marks
    begins[name] = begin - len(prompt)
    print(f"{name}: marked {text[begin:end]!r}, {begins[name]:+d} from the end of the prompt")
assert begins == {"qwen2_5": -1, "qwen3": 0}, "this has changed"
P
