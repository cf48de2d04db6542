#!/usr/bin/env bash
# BPE dropout (Provilkov et al., 2020) leaves each merge out with probability p at each step. The
# tokenizers library keeps merges whose characters were merged otherwise by then in its queue; when
# such a stale entry is drawn and "not dropped", every merge that had been left out gets another try.
# So fewer merges are left out than p says.
#
# The word "abcde" with the merges ab, de, bc in this order and p = 0.5. By the paper, at each step
# every possible merge is dropped with p and the first that is left is done; nothing is left to do
# when all were dropped. Enumerating that gives P("ab" and "de" both merged) = 0.375; the library
# shows 0.438.
#
#   seen (tokenizers 0.23.3, 400,000 draws): 0.3750 by the paper, 0.4378 (standard error 0.0008)
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "tokenizers==0.23.3"
PYTHONPATH="$place" python3 - <<'P'
from functools import cache

from tokenizers import Tokenizer, models

MERGES, RATE, DRAWS = ["ab", "de", "bc"], 0.5, 400_000


@cache
def paper(pieces):
    """P(ab and de in the end) by algorithm 1 of the paper."""
    possible = sorted(
        (MERGES.index(a + b), at)
        for at, (a, b) in enumerate(zip(pieces, pieces[1:]))
        if a + b in MERGES
    )
    chance, total = 1.0, 0.0
    for _, at in possible:
        merged = (*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :])
        total += chance * (1 - RATE) * paper(merged)
        chance *= RATE
    return total + chance * ("ab" in pieces and "de" in pieces)


vocabulary = {token: n for n, token in enumerate([*"abcde", *MERGES])}
bpe = models.BPE(vocabulary, [tuple(merge) for merge in MERGES], dropout=RATE)
tokenizer = Tokenizer(bpe)
both = sum(
    {"ab", "de"} <= set(tokenizer.encode("abcde").tokens) for _ in range(DRAWS)
) / DRAWS
expected = paper(tuple("abcde"))
print(f"P(ab and de merged): {expected:.4f} by the paper, {both:.4f} seen")
assert both - expected > 0.02, "this has changed: the library follows the paper now"
P
