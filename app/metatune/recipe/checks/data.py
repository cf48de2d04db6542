"""Rules on the data: sources, their columns, and what becomes of their documents."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import get_args

from metatune.recipe.faults import ABSENT, Fault, unknown
from metatune.recipe.paths import joined
from metatune.recipe.schema import DataSpec
from metatune.recipe.schema.data import HeldOutSplit
from metatune.recipe.sources import COLUMNS, KINDS, MASKS, OPTIONS
from metatune.recipe.weightings import no_weighting


def there_are_domains(data: DataSpec) -> Iterable[Fault]:
    """At least one."""
    if not data.domains:
        cure = "write one, e.g. `prose: {shipped: NAME}` or `mine: {path: FILE}`"
        yield Fault("data.domains", data.domains, "names no domain", cure)
    elif not data.trained:
        uses = {name: source.use for name, source in data.domains.items()}
        cure = "give one use: all or use: train, or take use out"
        yield Fault("data.domains", uses, "names no domain to train on", cure)


def one_source_a_domain(data: DataSpec) -> Iterable[Fault]:
    """A domain's text comes from one place."""
    for name, source in data.domains.items():
        said = {kind: value for kind in KINDS if (value := getattr(source, kind)) is not None}
        if len(said) != 1:
            problem = f"must have exactly one of {', '.join(KINDS)}"
            cure = "keep one of them" if said else "write one of them"
            yield Fault(joined("data.domains", name), said, problem, cure)


def options_fit_the_source(data: DataSpec) -> Iterable[Fault]:
    """What is said of a source applies to its kind."""
    for name, source in data.domains.items():
        kinds = {kind for kind in KINDS if getattr(source, kind) is not None}
        for option, takes in OPTIONS.items():
            value = getattr(source, option)
            if value is not None and kinds and not kinds & takes:
                problem = f"goes with {', '.join(kind for kind in KINDS if kind in takes)} only"
                path = f"{joined('data.domains', name)}.{option}"
                yield Fault(path, value, problem, "take it out")


def one_way_to_read_a_record(data: DataSpec) -> Iterable[Fault]:
    """Records hold text, or a prompt with its completion, or messages, or tokens."""
    for name, source in data.domains.items():
        path = joined("data.domains", name)
        said = {option: value for option in COLUMNS if (value := getattr(source, option))}
        if ("prompt" in said) != ("completion" in said):
            missing = "completion" if "prompt" in said else "prompt"
            problem = f"lacks {missing}: prompt and completion go together"
            yield Fault(path, said, problem, f"write {missing}: NAME OF ITS COLUMN")
        if len({"sft" if option in ("prompt", "completion") else option for option in said}) > 1:
            problem = "must have one of column, prompt with completion, messages, or input_ids"
            yield Fault(path, said, problem, "keep one of them")
        masks = {option: value for option in MASKS if (value := getattr(source, option))}
        if masks and "input_ids" not in said:
            problem = "says which of input_ids count, which the domain lacks"
            cure = "write input_ids: NAME OF ITS COLUMN, or label for a class of documents"
            yield Fault(f"{path}.{next(iter(masks))}", next(iter(masks.values())), problem, cure)
        elif len(masks) > 1:
            yield Fault(path, masks, "must have one of labels and loss_mask", "keep one of them")
        if source.messages is not None and data.tokenizer == "bytes":
            problem = "needs a tokenizer with a chat template"
            cure = "name one as data.tokenizer, or give prompt and completion columns"
            yield Fault(f"{path}.messages", source.messages, problem, cure)


def plain_text_is_corrupted(data: DataSpec) -> Iterable[Fault]:
    """Where tokens change places, their classes would be wrong."""
    for name, source in data.domains.items():
        classed = source.prompt or source.messages or source.labels or source.loss_mask
        if source.corrupt is not None and classed:
            problem = "goes with plain text only, which has no classes of tokens"
            path = f"{joined('data.domains', name)}.corrupt"
            yield Fault(path, asdict(source.corrupt), problem, "take it out")
        elif source.corrupt is not None and name not in data.trained:
            problem = f"has no effect on a domain of use {source.use}, which is not trained on"
            path = f"{joined('data.domains', name)}.corrupt"
            yield Fault(path, asdict(source.corrupt), problem, "take it out")


def streams_have_a_budget(data: DataSpec) -> Iterable[Fault]:
    """What is read from the network as it comes needs an end."""
    for name, source in data.domains.items():
        if source.streaming and source.max_tokens is None:
            cure = "write max_tokens, e.g. max_tokens: 5e7"
            path = f"{joined('data.domains', name)}.streaming"
            yield Fault(path, True, "needs a budget of tokens", cure)


def all_domains_have_labels_or_none(data: DataSpec) -> Iterable[Fault]:
    """A batch holds sequences of every domain, whose tokens are all of a class or none is."""
    if any(source.label for source in data.domains.values()):
        for name, source in data.domains.items():
            if source.label is None:
                problem = "lacks label, which other domains have"
                cure = "write label: NAME OF ITS COLUMN, or take it out everywhere"
                yield Fault(joined("data.domains", name), ABSENT, problem, cure)


def target_is_a_weighting(data: DataSpec) -> Iterable[Fault]:
    """The held-out loss averages over domains that there are."""
    for name in data.target:
        if name not in data.domains:
            path = f"data.target.{name}"
            yield unknown(path, data.target[name], "domain", name, list(data.domains))
    yield from no_weighting("data.target", data.target)


def both_splits_are_measured(data: DataSpec) -> Iterable[Fault]:
    """Both held-out splits have documents of a domain in the target."""
    weighed = {name for name, weight in data.target.items() if weight > 0}
    lost = [name for name in weighed & set(data.domains) if data.domains[name].use == "train"]
    for name in sorted(lost):
        problem = f"domain {name} has use: train: none of its documents is held out"
        cure = "give it no weight, or use: all"
        yield Fault(f"data.target.{name}", data.target[name], problem, cure)
    if lost or not weighed or not weighed <= set(data.domains) or not data.trained:
        return  # then it is said before what is wrong
    for split in get_args(HeldOutSplit):
        if not data.measured(split):
            problem = f"weighs no domain with documents in the {split} split"
            cure = f"weigh one of use: {split}, or of use: all"
            yield Fault("data.target", data.target, problem, cure)


def batch_holds_every_domain(data: DataSpec) -> Iterable[Fault]:
    """The batches of the hypergradient hold sequences of every domain that is trained on."""
    if data.batch_size < len(data.trained):
        problem = f"must be at least the number of domains, {len(data.trained)}"
        cure = "raise it: the hypergradient needs every domain in each batch"
        yield Fault("data.batch_size", data.batch_size, problem, cure)


def something_is_trained_on(data: DataSpec) -> Iterable[Fault]:
    """The two held-out shares leave documents to train on."""
    validation, test = data.held_out.validation, data.held_out.test
    if validation + test >= 1:
        problem = f"with test = {test} leaves nothing to train on; must sum to less than 1"
        yield Fault("data.held_out.validation", validation, problem, "lower one of them")
