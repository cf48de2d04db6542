"""From a recipe to its inner training, or to all that is wrong with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from metatune import tunables
from metatune.data import Corpus, TokenClass, TokenizingProgress, dated, load, look, tokenizer_of
from metatune.hypergrad import Problem
from metatune.hypergrad.shapes import Shapes
from metatune.inner import devices, initialisation, losses, optimizers, seeds, size
from metatune.inner.estimators import program_is_there, too_many_directions
from metatune.inner.hyperparameters import hyper_at_of, over_steps_of
from metatune.inner.metrics import objective, whole
from metatune.inner.start import Start, balance_faults, context_faults, frozen, initialiser, start
from metatune.inner.trainable import Trainable, trainable
from metatune.inner.training import InnerTraining, of_all_parameters
from metatune.recipe import reading, schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.schema import Recipe
from metatune.tunables import (
    Form,
    Setting,
    Supply,
    TrainingTokens,
    Tunable,
    TunableClassWeights,
    TunableLearnedUpdate,
    averaging,
    optimizer_groups,
)
from metatune.tunables.mixture import starting_shares
from metatune.tunables.shapes import Names
from metatune.tunables.token_classes import PARTS

Built = TypeVar("Built")


def prepare_file(
    path: Path,
    overrides: Sequence[str] = (),
    listener: Callable[[TokenizingProgress], None] | None = None,
    today: date | None = None,
    elsewhere: bool = False,
) -> InnerTraining:
    """Reads a recipe and prepares its training.

    Args:
        path: the recipe's file.
        overrides: `KEY.PATH=VALUE` each.
        listener: is told how far the tokenizing of the data is.
        today: the day that a chat template is told which asks for one, unless the recipe names
            it; by default the one that it is. The recipe of the training has it then.
        elsewhere: as of `prepare`.

    Raises:
        RecipeError: with all faults together, those of the text and those of what it names.
    """
    sections, faults = reading.draft(path, overrides)
    parts = _parts(sections, faults, listener, today, elsewhere)
    if parts.faults:
        raise RecipeError(str(path), parts.faults)
    return _assemble(Recipe(**{**sections, "data": parts.data}), parts, elsewhere)


def prepare(
    recipe: Recipe,
    source: str = "recipe",
    listener: Callable[[TokenizingProgress], None] | None = None,
    elsewhere: bool = False,
) -> InnerTraining:
    """Loads the data and builds the training of a recipe; computes nothing yet.

    Args:
        recipe: what to train and tune.
        source: what to call the recipe in errors.
        listener: is told how far the tokenizing of the data is.
        elsewhere: for devices that this process needn't have: for several its programs can be
            compiled, not run.

    Raises:
        RecipeError: with all faults of data, model and tunables together.
    """
    parts = _parts(
        {field.name: getattr(recipe, field.name) for field in fields(recipe)},
        (),
        listener,
        elsewhere=elsewhere,
    )
    if parts.faults:
        raise RecipeError(source, parts.faults)
    dated_recipe = recipe if parts.data is None else replace(recipe, data=parts.data)
    return _assemble(dated_recipe, parts, elsewhere)


def rescaled(training: InnerTraining, steps: int) -> InnerTraining:
    """The same training over another horizon, its schedules and windows rescaled with it.

    Args:
        training: the training.
        steps: the horizon; at least as many as windows, or some window has no step.
    """
    recipe = replace(training.recipe, inner=replace(training.recipe.inner, steps=steps))
    params = jax.eval_shape(training.initialise, jax.random.key(0)).params
    vocab_size = training.corpus.tokenizer.vocab_size
    setting = _setting(
        recipe.data, recipe.inner, recipe.tune, vocab_size, recipe.seed, training.names, params
    )
    setting = _with_optimizer(setting, recipe.inner.optimizer)
    # Caps stay those of the whole training, of which this one is an image.
    setting = _with_data(setting, training.corpus, training.recipe)
    tuning = tunables.build(recipe.tune, setting)
    hyper_at = hyper_at_of(recipe, training.names, params, tuning)
    return replace(
        training,
        recipe=recipe,
        tunables=tuning,
        reweighted=replace(training.reweighted, hyper_at=hyper_at),
        sampled=replace(training.sampled, hyper_at=hyper_at),
        hyper_over=over_steps_of(recipe, training.names, params, tuning),
    )


class _Parts(NamedTuple):
    """What the sections of a recipe name, as far as it is sound, and all faults.

    The section `data` among them says the day that its chat template was told.
    """

    data: schema.DataSpec | None
    corpus: Corpus | None
    start: Start | None
    part: Trainable | None
    tunables: tuple[Tunable, ...] | None
    others: initialisation.Ingredients | None
    faults: list[Fault]


def _parts(
    sections: Mapping[str, Any],  # each a class of the schema, told apart by their names
    known: Sequence[Fault],
    listener: Callable[[TokenizingProgress], None] | None = None,
    today: date | None = None,
    elsewhere: bool = False,
) -> _Parts:
    """Looks at everything that sections name, though some may be missing.

    Args:
        sections: of a recipe, by name.
        known: the faults that were found in them.
        listener: is told how far the tokenizing of the data is.
        today: as of `prepare_file`.
        elsewhere: as of `prepare`.
    """
    faults = list(known)
    text: schema.DataSpec | None = sections.get("data")
    wanted: schema.ModelSpec | None = sections.get("model")
    tune: schema.TuneSpec | None = sections.get("tune")
    # Of a number that is no seed nothing can be drawn; what is looked at doesn't depend on it.
    seed = 0 if any(fault.path == "seed" for fault in known) else sections.get("seed", 0)
    encoder = text and _attempt(faults, partial(tokenizer_of, text, seed, today))
    if text and encoder:
        text = dated(text, encoder)
    # Without a tokenizer there is a fault already, and nothing to compare with.
    vocab_size = encoder.vocab_size if encoder else 1
    begin = None
    # Where a recipe names no model, what is wrong with its names may be known already.
    if wanted and not (known and wanted.config is None and wanted.pretrained is None):
        begin = _attempt(faults, lambda: start(wanted, vocab_size))
    if begin and text:
        faults += context_faults(begin.model, text)
    if begin and not any(fault.path.startswith(devices.PATH) for fault in known):
        faults += devices.faults(sections.get("devices", "auto"), begin.model, elsewhere)
    inner: schema.InnerSpec | None = sections.get("inner")
    outer: schema.OuterSpec | None = sections.get("outer")
    if begin and inner:
        faults += balance_faults(begin.model, inner)
    if begin and text and (beyond := list(size.faults(begin.model, text, inner, outer))):
        # Whatever else is looked at would be as large.
        return _Parts(text, None, begin, None, None, None, [*faults, *beyond])
    part = None
    if begin and inner and not any(f.path.startswith(("inner.train", "inner.lora")) for f in known):
        head = inner.loss is not None and inner.loss.multi_token_prediction is not None
        part = _attempt(faults, lambda: trainable(begin.model, inner.train, inner.lora, head))
    setting = tuning = None
    grouped = True
    if part and inner and isinstance(inner.optimizer, schema.GroupsSpec):
        if grouped := not any(f.path.startswith(optimizer_groups.PATH) for f in known):
            check = partial(optimizer_groups.assigned, inner.optimizer, part.names)
            grouped = _attempt(faults, check) is not None
    # Where a fault keeps us from knowing what is trained, expressions can't be judged.
    if text and begin and tune and (part or not inner):
        names = part.names if part else begin.model.names()
        shapes = _trained_shapes(begin, part) if part else begin.model.init_shapes()
        setting = _setting(text, inner, tune, vocab_size, seed, names, shapes)
        if tune.optimizer and inner and part and grouped:
            setting = _with_optimizer(setting, inner.optimizer)
        tuning = _attempt(faults, partial(tunables.build, tune, setting, known))
    others = initialisation.Ingredients()
    if tune and begin and begin.params is not None:
        others = _attempt(faults, partial(initialisation.ingredients, tune.initialisation, begin))
    if (
        tuning
        and tune
        and part
        and outer
        and not tunables.needs_data(tune)
        and not any(f.path.startswith("tune") for f in faults)
    ):
        faults += too_many_directions(outer, tuning)
    # A command with a fault of its own can't be looked for.
    trainer: schema.TrainerSpec | None = sections.get("trainer")
    if trainer and not any(f.path.startswith("trainer") for f in known):
        faults += program_is_there(trainer)
    corpus = None
    if text and faults:  # then all text isn't tokenized first: that may take minutes
        _attempt(faults, lambda: look(text, encoder))
    elif text:
        corpus = _attempt(faults, lambda: load(text, encoder, listener))
    if corpus and setting and tune and outer:
        if tunables.needs_data(tune):
            setting = _with_data(setting, corpus, Recipe(**{**sections, "data": text}))
            tuning = _attempt(faults, partial(tunables.build, tune, setting))
            faults += too_many_directions(outer, tuning) if tuning else ()
        if outer.objective.classes:
            classes = [TokenClass[name.upper()] for name in outer.objective.classes]
            where = "outer.objective.classes"
            corpus = _attempt(faults, partial(corpus.measured_on, classes, where))
    # The data's own rules are looked at twice: by who reads the text and by who loads the data.
    once = {(fault.path, fault.problem): fault for fault in reversed(faults)}
    return _Parts(text, corpus, begin, part, tuning, others, list(reversed(once.values())))


def _setting(
    data: schema.DataSpec,
    inner: schema.InnerSpec | None,
    tune: schema.TuneSpec,
    vocab_size: int,
    seed: int,
    names: Names,
    shapes: Shapes,
) -> Setting:
    """What is tuned for, before the data is read.

    Args:
        data: of the recipe.
        inner: of the recipe; None where it is faulty.
        tune: of the recipe.
        vocab_size: of the tokenizer.
        seed: of the recipe.
        names: of the trained parameters.
        shapes: theirs.
    """
    return Setting(
        names,
        data.trained,
        inner.steps if inner else 1,
        shapes,
        loss=inner and inner.loss,
        vocab_size=vocab_size,
        key=seeds.tunable_key(seed) if tune.rater else None,
        seed_key=seeds.key(seed) if tune.learned_update else None,
    )


def _with_optimizer(setting: Setting, optimizer: schema.InnerOptimizerSpec) -> Setting:
    """What is tuned for, with what trains."""
    decaying = optimizers.decaying(optimizer, setting.names, setting.shapes)
    return setting._replace(optimizer=optimizer, decaying=decaying)


def _with_data(setting: Setting, corpus: Corpus, recipe: Recipe) -> Setting:
    """What is tuned for, with what the tunables must know of the training data."""
    length = corpus.sequence_length
    supply = Supply(
        tokens=tuple(len(domain.train) * length for domain in corpus.domains),
        horizon=recipe.inner.steps * recipe.data.batch_size * length,
    )
    return setting._replace(tokens=_training_tokens(corpus, recipe.tune), supply=supply)


def _training_tokens(corpus: Corpus, tune: schema.TuneSpec) -> TrainingTokens | None:
    """What the tunables must know of the training data; None where it is nothing."""
    if not tunables.needs_tokens(tune):
        return None
    # A batch's loss is a mean over its tokens, and so is that of the weights.
    mixture = corpus.token_shares(starting_shares(tune.mixture, corpus.names))
    classes = tunables.token_classes(tune.loss_weights, corpus, mixture)
    of_class = classes.tokens(corpus)
    return TrainingTokens(classes, of_class, mixture, tune.mixture is not None)


def _trained_shapes(begin: Start, part: Trainable) -> Shapes:
    """What is trained of a model, without its values."""
    return jax.eval_shape(
        # A key that is given to it would be computed, by programs that are compiled for that.
        lambda shapes: part.trained(shapes, jax.random.key(0)),
        begin.model.init_shapes(),
    )


def _assemble(recipe: Recipe, parts: _Parts, elsewhere: bool) -> InnerTraining:
    _, corpus, begin, part, tuning, others, _ = parts
    if corpus is None or begin is None or part is None or tuning is None or others is None:
        raise ValueError("a recipe without faults has all its parts")
    layout = devices.layout_of(recipe, begin.model, elsewhere)
    here = None if elsewhere else layout  # elsewhere nothing can be put
    model = replace(begin.model, layout=layout)
    if here is not None and begin.params is not None:
        begin = begin._replace(params=here.place(begin.params, begin.params))
    optimizer = optimizers.build(
        recipe.inner.optimizer, part.names, model.config.transposed, _learned_form(tuning)
    )
    optimizer = devices.kept_in_place(optimizer, layout)
    if averaging.averages(tuning):
        optimizer = optimizers.InnerOptimizer(*averaging.beside(optimizer.init, optimizer.update))
    fresh = initialiser(begin, optimizer.init, part, layout)
    initialise = initialisation.of_one_draw(recipe.tune.initialisation, fresh, recipe.seed)
    params = _trained_shapes(begin, part)
    hyper_at = hyper_at_of(recipe, part.names, params, tuning)
    rest = frozen(begin, part, recipe.seed, here)
    classes = next(
        (each.classes for each in tuning if isinstance(each, TunableClassWeights)), PARTS
    )
    of_all = partial(of_all_parameters, part, rest, layout=layout)
    reweighted = Problem(
        of_all(losses.reweighted_loss(model, classes)),
        optimizer.update,
        of_all(objective(model, recipe)),
        hyper_at,
        evaluated=optimizer.evaluated,
        start=devices.started_in_place(
            initialisation.hook(tuning, optimizer.init, part, others), layout
        ),
        micro_batches=recipe.data.batch_size
        // (recipe.inner.micro_batch or recipe.data.batch_size),
        whole=whole(recipe.outer),
    )
    return InnerTraining(
        recipe,
        model,
        corpus,
        tuning,
        part,
        rest,
        reweighted,
        replace(reweighted, loss=of_all(losses.sampled_loss(model, classes))),
        begin.weights_sha256,
        others.sha256,
        initialise,
        over_steps_of(recipe, part.names, params, tuning),
        layout,
    )


def _attempt(faults: list[Fault], make: Callable[[], Built]) -> Built | None:
    """What `make` returns; if it finds faults, these are added to `faults`."""
    try:
        return make()
    except RecipeError as error:
        faults += error.faults
        return None


def _learned_form(tuning: tuple[Tunable, ...]) -> Form | None:
    """That of the learned update, if one is tuned."""
    return next(
        (tunable.form for tunable in tuning if isinstance(tunable, TunableLearnedUpdate)), None
    )
