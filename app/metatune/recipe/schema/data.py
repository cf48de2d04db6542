"""What a recipe says of the data: domains, their held-out text, and how sequences are cut."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metatune.recipe.rules import (
    AT_LEAST_ONE,
    AT_LEAST_TWO,
    INNER_FRACTION,
    ISO_DATE,
    SEED,
    SOME,
    ruled,
)

Files = str | tuple[str, ...]
"""A path or a glob (`**` for folders too), or several; relative to the working directory."""


HeldOutSplit = Literal["validation", "test"]


@dataclass(frozen=True)
class CorruptionSpec:
    """Training sequences that are spoilt on purpose, so that it is known which are.

    A search that is worth anything finds them. Held-out text stays as it is.

    Attributes:
        share: of the domain's training sequences, by chance.
        ways: what may have happened to a sequence, each as likely: its tokens are in a random
            order (shuffle), or its first sixteenth stands in it again and again (repeat).
        seed: of the choice and the orders.
    """

    share: float = ruled(INNER_FRACTION)
    ways: tuple[Literal["shuffle", "repeat"], ...] = ruled(("shuffle", "repeat"), SOME)
    seed: int = ruled(0, SEED)


@dataclass(frozen=True)
class SourceSpec:
    """Where a domain's documents come from: exactly one of the first eight.

    Text, JSON lines and CSV may be compressed (.gz, .bz2, .xz, .zst), and begin with a byte order
    mark. Text files are cut into documents of a few thousand bytes; all others hold records, each
    of which is a document, read from a column of text, from a prompt and its completion, from the
    messages of a chat, or from tokens. However records are stored, they are the same: a key that
    is null is one that isn't there, and a number without a fraction is a whole one. A record
    without text is left out and counted.

    Attributes:
        shipped: name of a corpus that comes with metatune.
        path: text files.
        jsonl: files with a JSON object on each line.
        parquet: Parquet files.
        csv: comma-separated files whose first line names the columns; messages and tokens stand
            in them as JSON.
        arrow: Arrow files, or streams (Feather, and what `datasets` writes).
        dataset: a Hugging Face dataset: an id on the hub, or a folder.
        saved: a folder that `datasets.Dataset.save_to_disk` wrote.
        config: configuration of `dataset`.
        split: split of `dataset` or `saved`; `train` by default.
        revision: branch, tag or commit of `dataset`.
        streaming: read `dataset` as it comes over the network, up to `max_tokens`, and keep
            nothing but the tokens. They are kept under what the recipe says: name a commit as
            `revision`, or later changes of the dataset aren't seen.
        column: column of the text; `text` by default.
        prompt: column of the prompts, whose tokens are of class prompt; with `completion`. Text,
            or lists of messages; then both are rendered as one conversation.
        completion: column of the completions: text, or messages of which the first is an answer.
        messages: column of lists of {role, content}, rendered by the tokenizer's chat template;
            the assistant's turns are of class completion. ShareGPT's {from, value} will do, and a
            content in parts {type: text, text}, which are joined; other parts are refused.
        input_ids: column of lists of tokens of `tokenizer`, taken as they are: nothing is put
            around them. Without padding.
        labels: column of lists of the same tokens, with -100 where nothing is to be learnt: those
            are of class prompt, the others of class completion; with `input_ids`.
        loss_mask: column of lists of 1 for tokens of class completion, 0 for those of class
            prompt (`assistant_masks`), instead of `labels`.
        label: column of a label of the document, a class by which `tune.loss_weights` can weigh
            tokens: text, numbers, or true and false, at most 16 different ones in all domains.
            Text that reads as a number, or as true or false in any letters, is that, because CSV
            has nothing else: 1, 1.0 and "1" are the label 1, True and "true" the label true.
        max_tokens: reading stops at the document that reaches so many tokens; null for no limit.
        corrupt: spoil some of the training sequences, of plain text; null for none.
        use: what all documents are for. `all`: each falls into a split by its hash. `train`: to
            train on, none is held out. `validation` or `test`: a held-out set of its own, for the
            objective and the choice of the best, or for the result; it is not trained on, has no
            share in the mixture, and counts as far as `data.target` weighs it. Copies of its
            documents in other domains stay there; they are counted.
    """

    shipped: str | None = None
    path: Files | None = None
    jsonl: Files | None = None
    parquet: Files | None = None
    csv: Files | None = None
    arrow: Files | None = None
    dataset: str | None = None
    saved: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    streaming: bool | None = None
    column: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    input_ids: str | None = None
    labels: str | None = None
    loss_mask: str | None = None
    label: str | None = None
    max_tokens: int | None = ruled(None, AT_LEAST_ONE)
    corrupt: CorruptionSpec | None = None
    use: Literal["all", "train", "validation", "test"] = "all"


@dataclass(frozen=True)
class HeldOutSpec:
    """How much of each domain is kept from the inner training.

    Attributes:
        validation: share of the documents for the objective and for the choice of the best.
        test: share of the documents for the result, touched once.
    """

    validation: float = ruled(0.1, INNER_FRACTION)
    test: float = ruled(0.1, INNER_FRACTION)


@dataclass(frozen=True)
class PackingSpec:
    """How documents, each with an end-of-sequence token behind it, fill the sequences.

    Attributes:
        cross_documents: a token may attend to documents before its own in the same sequence, and
            the first token of a document is predicted from the one before. Otherwise neither.
        last_window: the tokens at the end of a split that fill no whole sequence: left out, or
            filled up with padding, which is no part of the loss.
    """

    cross_documents: bool = True
    last_window: Literal["drop", "pad"] = "drop"


@dataclass(frozen=True)
class DataSpec:
    """The text, and how it is cut into batches.

    Attributes:
        domains: sources by name; the order is the order of the mixture's shares.
        target: weights over domains of the held-out loss; normalised to sum to one, over the
            domains that have documents in the split in question.
        sequence_length: tokens per sequence; two at least: one to read and one to predict.
        batch_size: sequences per inner step.
        tokenizer: `bytes` (vocabulary 256 and three specials), or a fast Hugging Face tokenizer: a
            folder, or an id on the hub.
        bos: whether a document begins with the tokenizer's token for that. `auto`: text, also of a
            prompt with its completion, if the tokenizer puts it before a text by itself, and a
            conversation if its chat template writes it, as where models are served. There is
            never more than one, and none is put before `input_ids`.
        held_out: shares of the documents kept from the inner training.
        packing: how documents fill the sequences.
        date: the day, YYYY-MM-DD, that chat templates are told which ask for one; where they do
            and it is null, the day on which the recipe is first used, which is then kept.
        bpe_dropout: split the words of training text with the dropout that the tokenizer's file
            asks for, drawn from the seed, once for all epochs. Without it, and in held-out text
            always, it is left out.
        invalid_utf8: what happens to text that isn't UTF-8: it is refused, or its invalid bytes
            are replaced by U+FFFD and counted.
    """

    domains: Mapping[str, SourceSpec]
    target: Mapping[str, float]
    sequence_length: int = ruled(AT_LEAST_TWO)
    batch_size: int = ruled(AT_LEAST_ONE)
    tokenizer: str = "bytes"
    bos: Literal["auto", "always", "never"] = "auto"
    held_out: HeldOutSpec = field(default_factory=HeldOutSpec)
    packing: PackingSpec = field(default_factory=PackingSpec)
    date: str | None = ruled(None, ISO_DATE)
    bpe_dropout: bool = False
    invalid_utf8: Literal["refuse", "replace"] = "refuse"

    @property
    def trained(self) -> tuple[str, ...]:
        """The domains that are trained on, in the order of the mixture's shares."""
        return tuple(n for n, its in self.domains.items() if its.use in ("all", "train"))

    def measured(self, split: HeldOutSplit) -> tuple[str, ...]:
        """The domains that the target weighs and that have documents in a held-out split."""
        named = self.domains.items()
        return tuple(n for n, its in named if its.use in ("all", split) and self.target.get(n))
