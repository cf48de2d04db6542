"""What can't be carried to other sizes, and what a rule says nothing of: refused before compute."""

from collections.abc import Iterator

from metatune.artefact import Artefact, Optimizer
from metatune.artefact.demands import FITTED
from metatune.artefact.sections.optimizer import GROUPS
from metatune.models.families import FAMILIES
from metatune.recipe.faults import ABSENT, Fault, unknown
from metatune.transfer.mapping import counterparts
from metatune.transfer.rules import RULES, Rule
from metatune.transfer.sizes import Side
from metatune.transfer.stepping import called

AS_THEY_ARE = "--rule none takes the rates as they are"

OWN_RULE = ("mup", "mup_base_width")
"""Fields by which tools mark a model whose sizes have set its rates and multipliers already."""
MULTIPLIERS = ("attention_multiplier", "logits_scaling", "residual_multiplier")
"""Granite's, which are of one model: the sizes of another don't say them."""


def named(rule: str) -> Fault | None:
    """The fault of a rule that isn't there."""
    return None if rule in RULES else unknown("--rule", rule, "rule", rule, tuple(RULES))


def impossible(artefact: Artefact, proxy: Side, target: Side) -> Iterator[Fault]:
    """Why no rule carries an artefact to a target; nothing if one can."""
    if proxy.family != target.family:
        problem = f"must be {proxy.family!r}, the family that was tuned"
        cure = "name a model of the same family, or tune on one"
        yield Fault(f"{target.source}, model_type", target.family, problem, cure)
    elif proxy.tied != target.tied:
        problem = (
            f"must be {proxy.tied}, as in the tuned model: an embedding that is the head too has "
            "another rate than one that isn't"
        )
        cure = "tie both or none, and tune anew"
        yield Fault(f"{target.source}, tie_word_embeddings", target.tied, problem, cure)
    ours, theirs = proxy.tokenizer_sha256, target.tokenizer_sha256
    if ours and theirs and ours != theirs:
        problem = f"must be that of the tuned training, {ours}: other tokens are another task"
        cure = "take the tokenizer that was tuned with, or tune with this one"
        yield Fault(f"{target.source}, hash of the tokenizer", theirs, problem, cure)
    if FITTED in artefact.provenance:
        problem = "the artefact was carried to other sizes before"
        cure = "carry the one of the run over instead of an export"
        yield Fault(
            f"provenance.{FITTED}", artefact.provenance[FITTED]["demands"]["rule"], problem, cure
        )
    if proxy.like(target):
        return
    if artefact.learning_rates.elements is not None:
        problem = "rates within parameters have the shapes of the tuned model"
        cure = "tune rates of whole tensors, or of groups of them"
        yield Fault("learning_rates.elements", ABSENT, problem, cure)
    if artefact.initialisation is not None:
        problem = "the weights of a tuned start have the shapes of the tuned model"
        yield Fault("initialisation", ABSENT, problem, "tune the start on the model to come")
    if "lora" in artefact.provenance:
        problem = "adapters start from a pretrained model, whose sizes no rule changes"
        cure = "tune adapters on the model to come"
        yield Fault("provenance.lora", artefact.provenance["lora"], problem, cure)


def of_the_models(proxy: Side, target: Side, rule: Rule) -> Iterator[Fault]:
    """What of two models a rule says nothing of, or would scale once more than they do."""
    if rule.optimizers is None:
        return
    for field, what in (("experts", "num_experts"), ("chosen", "num_experts_per_tok")):
        ours, theirs = (getattr(side, field) for side in (proxy, target))
        if ours != theirs:
            problem = (
                f"must be {ours}, as in the tuned model: {rule.name} says how experts follow their "
                "widths, and nothing of other numbers of them"
            )
            path = f"{target.source}, {FAMILIES[target.family].spelled(what)}"
            cure = "keep that number, or tune anew"
            if field == "chosen":  # of other experts than were tuned no rates are known at all
                cure += f"; {AS_THEY_ARE}"
            yield Fault(path, theirs, problem, cure)
    for side in (proxy, target):
        for key in OWN_RULE:
            if value := side.config.get(key):
                problem = f"says that the model scales itself: {rule.name} would scale it again"
                yield Fault(f"{side.source}, {key}", value, problem, AS_THEY_ARE)
    for key in MULTIPLIERS:
        ours, theirs = (side.config.get(key) for side in (proxy, target))
        if ours != theirs:
            problem = f"must be {ours!r}, as in the tuned model, which {rule.name} starts from"
            yield Fault(f"{target.source}, {key}", theirs, problem, AS_THEY_ARE)


def _of_the_optimizer(artefact: Artefact, proxy: Side, target: Side, rule: Rule) -> Iterator[Fault]:
    """Where it is another than the tuned one, or one that a rule says nothing of."""
    optimizer = artefact.optimizer
    settings, allowed = optimizer.settings, rule.optimizers or ()
    tuned = called(settings["kind"], optimizer.kinds)
    if target.optimizer not in (None, tuned):
        problem = (
            f"must be {tuned!r}, which the rates were tuned for: {rule.name} says "
            "nothing of a change"
        )
        cure = f"take that one; {AS_THEY_ARE}"
        yield Fault(f"{target.source}, optimizer.kind", target.optimizer, problem, cure)
    elif target.kinds:
        yield from _other_groups(optimizer, proxy, target, rule)
    for place, kind in enumerate(optimizer.kinds):
        if kind not in allowed:
            said = f"groups[{place}]." if GROUPS in settings else ""
            problem = f"{rule.name} says nothing of it (only of {', '.join(allowed)})"
            yield Fault(f"optimizer.{said}kind", kind, problem, AS_THEY_ARE)
    if "sgd" in optimizer.kinds and "sgd" in allowed and settings["clip_norm"] is not None:
        problem = (
            "clipping makes the steps of SGD depend on the norm of all gradients, which grows with "
            f"the width: {rule.name} can't say how its rates follow"
        )
        yield Fault(
            "optimizer.clip_norm",
            settings["clip_norm"],
            problem,
            f"tune without clipping; {AS_THEY_ARE}",
        )


def _other_groups(optimizer: Optimizer, proxy: Side, target: Side, rule: Rule) -> Iterator[Fault]:
    """A parameter of the target whose optimizer isn't that of the one that was tuned for it."""
    for name, at in counterparts(proxy, target).items():
        tuned, here = optimizer.kinds[optimizer.place(at.lower)], target.kinds.get(name)
        if here not in (None, tuned):
            problem = (
                f"must be {tuned!r}, which the rates of {name} were tuned for: {rule.name} says "
                "nothing of a change"
            )
            cure = f"give the groups the expressions that were tuned; {AS_THEY_ARE}"
            yield Fault(f"{target.source}, optimizer.groups", here, problem, cure)
            return


def unsaid(artefact: Artefact, proxy: Side, target: Side, rule: Rule) -> Iterator[Fault]:
    """What of an artefact, or of what is to use it, a rule says nothing of."""
    if rule.optimizers is None:
        return
    yield from of_the_models(proxy, target, rule)
    yield from _of_the_optimizer(artefact, proxy, target, rule)
    fresh = f"{rule.name} is about trainings from fresh parameters, not of"
    for key, what in (("lora", "adapters"), ("weights_sha256", "pretrained weights")):
        if key in artefact.provenance:
            value = artefact.provenance[key]
            yield Fault(f"provenance.{key}", value, f"{fresh} {what}", AS_THEY_ARE)
    if target.start is not None:
        yield Fault(f"{target.source}, start", target.start, f"{fresh} these", AS_THEY_ARE)
    if artefact.learned_update is not None:
        problem = f"{rule.name} says nothing of networks that correct the step"
        yield Fault("learned_update", ABSENT, problem, f"tune without; {AS_THEY_ARE}")
    if artefact.loss_terms is not None and "auxiliary" in artefact.loss_terms.values:
        problem = f"{rule.name} says nothing of a head for the token after the next"
        yield Fault("loss_terms.auxiliary", ABSENT, problem, f"tune without; {AS_THEY_ARE}")
    ours, theirs = artefact.learning_rates.parameters, proxy.parameters
    for names, others, what in (
        (ours, theirs, f"is no parameter of {proxy.source}'s config"),
        (theirs, ours, "wasn't trained"),
    ):
        if alone := [name for name in names if name not in others]:
            problem = f"{what}: {rule.name} is about trainings of all of a model's parameters"
            yield Fault("learning_rates.parameters", alone[0], problem, AS_THEY_ARE)
