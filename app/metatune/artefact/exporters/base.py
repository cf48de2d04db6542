"""What an exporter is, and what all of them share: templates, and the words of a README."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any, Literal, NamedTuple

import yaml

from metatune.artefact.capabilities import Capabilities
from metatune.artefact.demands import fitted_lines
from metatune.artefact.document import held
from metatune.artefact.exporters.supply import supply_of_mixture
from metatune.artefact.files import README
from metatune.artefact.format import Artefact
from metatune.artefact.sections import AS_SAID
from metatune.artefact.sections.loss_weights import ClassWeights, Labels, Positions, Vocabulary
from metatune.artefact.sections.optimizer import SETTINGS
from metatune.artefact.writing import portable_files
from metatune.recipe.faults import Fault

MODULE = "metatune_schedules.py"
MIXTURE_MODULE = "metatune_mixture.py"
SCHEDULES_OF_TORCH = "torch_schedules.py"


class Production(NamedTuple):
    """The training that an export is for.

    Attributes:
        artefact: the schedules, carried to that training.
        steps: its updates.
        tokens_per_step: tokens of an update.
        sequences_per_step: sequences of an update; None if it wasn't said.
        warmup: what was kept of the warmup.
        dropped: what was tuned and the target can't express, a line each.
        warning: that the tuned training was far from this one; None if it wasn't.
        sizes: elements of each parameter, by checkpoint name; None where they aren't known.
        averaged: whether shares that move were left out, and their means stand for them.
        numbers: of the exporter.
        merged: what merging groups of parameters did to their rates; None where none was asked.
    """

    artefact: Artefact
    steps: int
    tokens_per_step: int
    sequences_per_step: int | None
    warmup: str
    dropped: tuple[str, ...] = ()
    warning: str | None = None
    sizes: Mapping[str, int] | None = None
    averaged: bool = False
    numbers: Mapping[str, str] = {}
    merged: str | None = None


class Exporter(NamedTuple):
    """A target that tuned schedules can be exported to.

    Attributes:
        name: on the command line.
        summary: what the export holds, in one line.
        capabilities: what of an artefact the target can express.
        files: the contents by file name; the folder works where metatune isn't installed.
        version: of the target that the files are for; empty where any will do.
        optimizers: kinds of optimizers whose rates it takes, where it takes rates.
        numbers: what each number in the files that the target itself reads means there, with its
            unit, by the name of its field.
        counts_sequences: whether shares that change ask for the sequences of an update.
        side_by_side: kinds of optimizers that it takes in groups, of several side by side.
        refused: why it doesn't take kinds that the target itself has, by kind.
        faults: why it can't take an artefact for another reason than its capabilities.
        stacks_experts: which of its models hold the experts of a block in one tensor, so that they
            have one rate; of `some`, an export that may lose something is for these.
        others: the same for other versions of the target.
    """

    name: str
    summary: str
    capabilities: Capabilities
    files: Callable[[Production], Mapping[str, bytes | str]]
    version: str = ""
    optimizers: tuple[str, ...] = ("adamw", "sgd")
    numbers: Mapping[str, str] = {}
    counts_sequences: bool = False
    side_by_side: tuple[str, ...] = ()
    refused: Mapping[str, str] = {}
    faults: Callable[[Artefact], Iterable[Fault]] = lambda artefact: ()
    stacks_experts: Literal["none", "some", "all"] = "none"
    others: tuple["Exporter", ...] = ()

    @property
    def versions(self) -> dict[str, "Exporter"]:
        """By version of the target, the one that is written by default first."""
        return {each.version: each for each in (self, *self.others)}


def export_files(
    production: Production, readme: str, modules: Mapping[str, str]
) -> dict[str, bytes | str]:
    """The files of an export whose README is a template.

    Args:
        production: whose numbers all go into tuned.json.
        readme: name of the template of README.md, and of that on weights of classes of tokens.
        modules: templates by the name of the file that they become.
    """
    artefact = production.artefact
    text = Template(template(f"{readme}.md")).substitute(
        facts=_facts(production),
        steps=production.steps,
        clip=_clip(artefact),
        accelerate_clip=_clip(artefact, "accelerator.clip_grad_norm_").replace(
            "# no", "pass  # no"
        ),
        clip_import=", clip_norm" if _clips_over_time(artefact) else "",
        elements=_elements(artefact, readme),
        learned_update=_learned_update(artefact, readme),
        max_grad_norm=max_grad_norm(artefact),
        mixture=_mixture(artefact),
        mixed=_mixed(production, readme),
        loss_weights="\n\n".join([_loss_weights(artefact, readme), *_loss_terms(artefact, readme)]),
        dropped=_bullets(
            [
                *_lost(production),
                *(muon_of_torch(artefact) if readme in ("torch", "hf_trainer") else []),
                *supply_of_mixture(production, AT_END[readme]),
            ]
        ),
    )
    files = {name: template(source) for name, source in modules.items()}
    if artefact.mixture is not None and SCHEDULES_OF_TORCH in modules.values():
        files[MIXTURE_MODULE] = template("torch_mixture.py")
    files |= {
        f"metatune_{section.key}.py": template(section.modules[readme])
        for section, _ in held(artefact)
        if readme in section.modules
    }
    return {README: text, **files, **portable_files(artefact)}


def torch_modules(production: Production) -> dict[str, str]:
    """The module for PyTorch, and that of the data where a mixture was tuned."""
    files = {MODULE: template(SCHEDULES_OF_TORCH)}
    if production.artefact.mixture is not None:
        files[MIXTURE_MODULE] = template("torch_mixture.py")
    return files


def config_files(
    production: Production,
    title: str,
    usage: str,
    files: Mapping[str, str],
    lost: Sequence[str] = (),
) -> dict[str, bytes | str]:
    """The files of an export for a trainer that is configured by its own files.

    Args:
        production: whose numbers all go into tuned.json.
        title: of README.md: the target and the version that it was made for.
        usage: what to paste, and where.
        files: contents by name.
        lost: what the target changes of the schedules, a line each.
    """
    sections = [
        f"# Tuned schedules for {title}",
        _facts(production),
        usage.strip(),
        _mixture(production.artefact, production.averaged),
        *_meanings(production.numbers),
        "## What is lost",
        _bullets([*_lost(production), *lost]) or "Nothing.",
    ]
    text = "\n\n".join(section.rstrip() for section in sections) + "\n"
    return {README: text, **files, **portable_files(production.artefact)}


def template(name: str) -> str:
    """The text of a file of the folder `templates`."""
    folder = resources.files("metatune.artefact.exporters") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def as_yaml(document: Mapping[str, object]) -> str:
    """YAML in the order of the document, floats with all their digits."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100)


def place(domain: str) -> str:
    """What stands in an export for the path of a domain's data; a word without white space."""
    return f"PATH/TO/{'_'.join(domain.split())}"


def _lost(production: Production) -> list[str]:
    return [f"**dropped**: {what}" for what in production.dropped]


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _facts(production: Production) -> str:
    """What is in tuned.json and what it is for, a line each."""
    artefact = production.artefact
    settings = dict(artefact.optimizer.settings)
    kind, groups = settings.pop("kind"), settings.pop("groups", ())
    chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
    rates, *others = (section.facts(value) for section, value in held(artefact, AS_SAID))
    lines = [
        f"tuned over {artefact.horizon_steps:,} updates, {artefact.horizon_tokens:,} tokens",
        f"exported for {production.steps:,} updates of {production.tokens_per_step:,} tokens",
        *([f"**warning**: {production.warning}"] if production.warning else []),
        f"the warmup is kept in {_kept(production)}",
        *([production.merged] if production.merged else []),
        *rates,
        f"for the optimizer {kind}: {chosen}",
        *(_of_group(place, group) for place, group in enumerate(groups)),
        *fitted_lines(artefact),
        *(line for lines in others for line in lines),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _of_group(place: int, group: Mapping[str, Any]) -> str:
    """An optimizer of several side by side, without the names of its parameters."""
    said = {key: group[key] for key in SETTINGS[group["kind"]] if key in group and key != "kind"}
    numbers = ", ".join(f"{key} {value}" for key, value in said.items())
    which = "all others" if group["match"] is None else f"`{group['match']}`"
    return f"groups[{place}], {which} ({len(group['parameters'])}): {group['kind']}, {numbers}"


def muon_of_torch(artefact: Artefact) -> list[str]:
    """What PyTorch's Muon does otherwise, a line where some of several optimizers are that."""
    orthogonal = any(
        group.get("orthogonal") for group in artefact.optimizer.settings.get("groups", ())
    )
    return [MUON_OF_TORCH] if orthogonal else []


MUON_OF_TORCH = (
    "`torch.optim.Muon` iterates in bfloat16, so that an update of a matrix is off by 1 to 2 %. "
    "Where it looks ahead (`nesterov`) it doesn't correct for a momentum that starts at zero: the "
    "first updates, about 1 / (1 - momentum) of them, turn a little"
)


def _kept(production: Production) -> str:
    if production.warmup == "fraction":
        return "its fraction of training: it stretches with the rest"
    return f"steps: right for {production.steps:,} updates alone, export anew for another number"


def _clip(artefact: Artefact, by: str = "torch.nn.utils.clip_grad_norm_") -> str:
    """The line of a PyTorch loop that clips as the tuned training did; `by` is what clips."""
    norm = artefact.optimizer.settings["clip_norm"]
    if _clips_over_time(artefact):
        norm = "clip_norm(schedule.last_epoch, total_steps)"
    if norm is None:
        return "# no clipping: the rates were tuned without"
    return f"{by}(model.parameters(), {norm})"


def max_grad_norm(artefact: Artefact) -> str:
    """The argument of that name of the Trainer, with what a reader must know of it."""
    if not _clips_over_time(artefact):
        return f"{artefact.optimizer.settings['clip_norm'] or 0.0},"
    first = artefact.optimizer_at(0, 1)["clip_norm"]
    return f"{first},  # of the first update: it moves, TunedTrainer sets it at each"


def _clips_over_time(artefact: Artefact) -> bool:
    schedules = artefact.optimizer.schedules
    return schedules is not None and "clip_norm" in schedules.values


def _elements(artefact: Artefact, readme: str) -> str:
    """What to know of rates within parameters; empty where none were tuned."""
    if artefact.learning_rates.elements is None:
        return ""
    return template(f"{readme}_elements.md").rstrip() + "\n\n"


def _learned_update(artefact: Artefact, readme: str) -> str:
    """What to know of a learned update; empty where none was tuned."""
    if artefact.learned_update is None:
        return ""
    moments = len(artefact.learned_update.decays) + 1
    text = Template(template(f"{readme}_learned_update.md")).substitute(moments=moments)
    return text.rstrip() + "\n\n"


def _loss_weights(artefact: Artefact, readme: str) -> str:
    """How to weigh the loss."""
    schedule = artefact.loss_weights
    if schedule is None:
        return "No loss weights were tuned."
    if not isinstance(schedule, ClassWeights):
        return (
            "`loss_weights` are those of sequences: multiply the loss of each by the weight of its "
            "domain."
        )
    places = ", ".join(f"{place} for {name}" for place, name in enumerate(schedule.classes))
    what, found = "which part of a document they are", ""
    match schedule.of:
        case Positions():
            what, found = "where in the sequence they stand", FOUND[readme].format("positions")
        case Vocabulary():
            what = "how frequent they are in the training data"
            found = FOUND[readme].format("vocabulary")
        case Labels():
            what = "which label their document has"
    text = Template(template(f"{readme}_classes.md")).substitute(places=places, what=what)
    return text.rstrip() + found


AT_END: Mapping[str, str] = {
    **dict.fromkeys(("json", "optax"), "your loader decides what comes then"),
    **dict.fromkeys(("torch", "hf_trainer"), "`Mixed` begins a source with a length anew"),
}
"""What happens where a domain is exhausted, by template."""

FOUND = {"json": "\n`{}` says the class of a token."} | dict.fromkeys(
    ("optax", "torch", "hf_trainer"),
    "\n\n`token_classes(tokens)` gives the classes of tokens [batch, sequence], from the `{}` in\n"
    "`tuned.json`.",
)
"""Where classes come from that the data doesn't say, by template."""


def _loss_terms(artefact: Artefact, readme: str) -> list[str]:
    """How to compute a loss with further terms; nothing where it has none."""
    if artefact.loss_terms is None:
        return []
    head = AUXILIARY if "auxiliary" in artefact.loss_terms.values else ""
    balance = BALANCE if "router_balance" in artefact.loss_terms.values else ""
    return [TERMS + HOW[readme] + head + balance]


TERMS = """The tuned training had more in its loss than the next token. With logits z, the loss of a
token is (1 - `label_smoothing`) (-log p_target) + `label_smoothing` mean_v (-log p_v) + `z_loss`
(log Σ_v exp z_v)²; what isn't named in `loss_terms` of `tuned.json` is zero there. Evaluate
without."""

AUXILIARY = """

`auxiliary` is the weight of what a head adds to the loss of a token, which nothing here computes:
its cross entropy of the logits that the model's own unembedding makes of h + W h. h are the final
features two tokens before it, in the same document; W is `auxiliary_head.weight`, [width, width],
trained with the model from zero."""

BALANCE = """

`router_balance` is the coefficient of how unevenly experts are used, which nothing here computes:
what transformers calls `router_aux_loss_coef`, in the loss with `output_router_logits=True`."""

HOW = {
    "json": "",
    "optax": (
        " `loss_terms(step, total_steps)` gives these numbers,\n"
        "`token_losses(logits, targets, step, total_steps)` the losses of tokens with them."
    ),
    "torch": (
        " `loss_terms(step, total_steps)` gives these numbers,\n"
        "`token_losses(logits, targets, step, total_steps)` the losses of tokens with them;\n"
        "`weighted_loss` has them too."
    ),
    "hf_trainer": (
        " `TunedTrainer` adds them in\ntraining, and `weighted_loss` does; leave "
        "`label_smoothing_factor` at 0."
    ),
}
"""What gives the losses of tokens with their terms, by template."""


def _mixed(production: Production, readme: str) -> str:
    """How to read data by the shares as they move; empty where no mixture was tuned."""
    if production.artefact.mixture is None or readme not in MIXED:
        return ""
    return Template(MIXED[readme] + ORDER).substitute(steps=production.steps) + "\n\n"


MIXED = {
    "torch": """The dataset, of a source of examples for each domain:

```python
from metatune_mixture import Mixed
from torch.utils.data import DataLoader

batch_size = 8  # sequences of an update, over all processes and accumulated gradients
mixed = Mixed(sources, $steps, batch_size)
loader = DataLoader(mixed, batch_size=batch_size)  # or less: of one process, of one micro-batch
```

In a training by torch.distributed each process draws its own sequences; `rank` and `ranks` say it
where some processes see the same data. With the loaders that `accelerate` prepares, which share
batches out themselves, give `ranks=1`. With several workers give `microbatch`, the loader's
`batch_size`. To resume, give `start_step`, the updates made; `state_dict()` is for torchdata's
`StatefulDataLoader`. """,
    "hf_trainer": """The dataset is

```python
from metatune_mixture import Mixed

dataset = Mixed(sources, $steps, batch_size)  # a source of examples for each domain
```

`batch_size` counts the sequences of one update, over all processes and accumulated gradients, and
`$steps` are its `max_steps`: `TunedTrainer` refuses others, and shares sequences out. """,
}
"""How to use `Mixed`, by template."""

ORDER = """Don't
shuffle it: its order is the schedule; shuffle the sources before. What is drawn depends on the
seed and the update alone. Each example that is a dict gets the weight of its domain as
`loss_weight` where those were tuned: multiply the loss of the sequence by it. A source with a
length begins anew past its end."""


def _meanings(numbers: Mapping[str, str]) -> list[str]:
    """What each number means in the target, in two parts of a README."""
    if not numbers:
        return []
    lines = [f"`{field}`: {meaning}" for field, meaning in numbers.items()]
    return ["## What the numbers mean", _bullets(lines)]


def _mixture(artefact: Artefact, averaged: bool = False) -> str:
    """What a reader must know of the shares of the domains."""
    if artefact.mixture is None:
        return "No mixture was tuned: sample the domains as the tuned training did."
    if averaged:
        return "The tuned shares change over training; the files hold their means over it."
    starts = ", ".join(f"{knot:g}" for knot in artefact.mixture.knots)
    if artefact.mixture.interpolation == "linear":
        return f"The shares move at every update, on lines between the fractions {starts}."
    return f"The shares change at these fractions of training, and stay in between: {starts}."
