#!/usr/bin/env bash
# transformers hands further keyword arguments of `apply_chat_template` to the template, and some
# templates call `strftime_now(...)`. To fix the date one would pass a function of that name; since
# everything a template sees is made plain data first, the function arrives as the text "<function>",
# which can't be called. (A template sees no warning either: `strftime_now is defined` is true.)
#
#   seen (transformers 5.24.0): TypeError: 'str' object is not callable; given text, it is used
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "transformers==5.24.0" "jinja2>=3.1.6"
PYTHONPATH="$place" python3 - 2>/dev/null <<'P'
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
chat = [{"role": "user", "content": "a"}]


def render(template, **given):
    return fast.apply_chat_template(chat, chat_template=template, tokenize=False, **given)


shown = render("{{ strftime_now }}", strftime_now=lambda form: "2026-03-01")
print("a function arrives as", shown)
assert shown == "<function>", "this has changed"
try:
    render("{{ strftime_now('%Y') }}", strftime_now=lambda form: "2026-03-01")
except TypeError as error:
    print("called:", error)
else:
    raise AssertionError("this has changed: functions can be called")
assert render("{{ date_string }}", date_string="1 March 2026") == "1 March 2026"
P
