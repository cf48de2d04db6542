import dataclasses
import pkgutil
from inspect import Parameter, Signature
from types import ModuleType, NoneType
from typing import get_type_hints

import pytest

from metatune.recipe import checks, reading, schema
from metatune.recipe.faults import Fault
from metatune.recipe.reading import members_of
from metatune.recipe.sources import KINDS, OPTIONS

MIXED = {"mixture": {}}


def put(tree, path, value):
    """Sets one value of `tree`, making sections on the way."""
    *above, name = path.split(".")
    for key in above:
        tree = tree.setdefault(key, {})
    tree[name] = value


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"tune": {}},
            "tune = {}: nothing is tuned; write one of learning_rates, mixture, loss_weights, "
            "optimizer, loss_terms, initialisation, learned_update, rater, averaging, "
            "e.g. `learning_rates: {}` for its defaults",
        ),
        (
            {"inner.micro_batch": 5},
            "inner.micro_batch = 5: must divide data.batch_size, 8; change one of the two, or "
            "leave it out for the whole batch",
        ),
        (
            {"inner.train": []},
            "inner.train = []: names nothing; write at least one regular expression",
        ),
        (
            {"inner.lora": {"targets": []}},
            "inner.lora.targets = []: names nothing; write at least one regular expression",
        ),
        (
            {"inner.train": ["mlp", "q_proj)"]},
            "inner.train[1] = 'q_proj)': not a regular expression: unbalanced parenthesis at "
            "position 6; write one as Python's `re` reads it, e.g. self_attn",
        ),
        (
            {"inner.lora": {"targets": ["*"]}},
            "inner.lora.targets[0] = '*': not a regular expression: nothing to repeat at position "
            "0; write one as Python's `re` reads it, e.g. self_attn",
        ),
        (
            {"inner.lora": {"targets": ["q_proj"], "rank": 0}},
            "inner.lora.rank = 0: must be a whole number of 1 or above; leave it out for the "
            "default, 8",
        ),
        (
            {"inner.lora": {"targets": ["q_proj"], "alpha": 0}},
            "inner.lora.alpha = 0.0: must be a number above 0; leave it out for the default, 16.0",
        ),
        (
            {"tune.learning_rates.windows": 21},
            "tune.learning_rates.windows = 21: must be at most inner.steps, 20; lower it, or "
            "raise inner.steps",
        ),
        (
            {"tune": {"loss_weights": {"windows": 40}}},
            "tune.loss_weights.windows = 40: must be at most inner.steps, 20; lower it, or raise "
            "inner.steps",
        ),
        (
            {"data.domains": {"code": {"path": "x"}}, "tune": MIXED},
            "tune.mixture = {'windows': 1, 'floor': 0.0, 'initial':…or': None, 'kl': 0.0, "
            "'smoothness': 0.0}: needs two domains or more to train on in data.domains; add a "
            "domain, or take tune.mixture out",
        ),
        (
            {"data.domains": {"code": {"path": "x"}}, "tune": {"loss_weights": {}}},
            "tune.loss_weights = {'per': 'domain', 'windows': 1, 'initial': None, 'buckets': None}"
            ": needs two domains or more to train on in data.domains; add a domain, or take "
            "tune.loss_weights out",
        ),
        (
            {"tune": {"mixture": {}, "loss_weights": {}}},
            "tune.loss_weights = {'per': 'domain', 'windows': 1, 'initial': None, 'buckets': None}"
            ": tune.mixture is tuned too: both weigh the domains, the same number twice; take out "
            "tune.loss_weights or tune.mixture",
        ),
        (
            {"tune": {"loss_weights": {"initial": {"cod": 2}}}},
            "tune.loss_weights.initial.cod = 2.0: unknown domain; did you mean code? (allowed: "
            "code, prose)",
        ),
        (
            {"tune": {"loss_weights": {"per": "position", "initial": {"position_5": 2}}}},
            "tune.loss_weights.initial.position_5 = 2.0: unknown position; did you mean "
            "position_4? (allowed: position_1, position_2, position_3, position_4)",
        ),
        (
            {"tune": {"loss_weights": {"per": "class", "buckets": 3}}},
            "tune.loss_weights.buckets = 3: has no effect on weights per class; take it out, or "
            "weigh per position or frequency",
        ),
        (
            {"tune": {"loss_weights": {"per": "frequency", "buckets": 1}}},
            "tune.loss_weights.buckets = 1: must be null, or a whole number from 2 to 256; "
            "leave it out for the default, null",
        ),
        (
            {"tune": {"loss_weights": {"per": "class", "initial": {"prompts": 0.1}}}},
            "tune.loss_weights.initial.prompts = 0.1: unknown class; did you mean prompt? "
            "(allowed: text, prompt, completion, system, tool)",
        ),
        (
            {"tune": {"loss_weights": {"per": "class", "initial": {"prompt": 0}}}},
            "tune.loss_weights.initial.prompt = 0.0: must be above 0: weights are tuned by their "
            "logarithms; take a small one for almost none, e.g. 0.01",
        ),
        (
            {"outer.objective.classes": []},
            "outer.objective.classes = (): must be null, or a list of at least one; leave it "
            "out for the default, null",
        ),
        (
            {"tune": {"mixture": {"floor": 0.5}}},
            "tune.mixture.floor = 0.5: must be below 0.5, one over the number of domains, 2; "
            "lower it",
        ),
        (
            {"tune": {"mixture": {"initial": {"code": 1}}}},
            "tune.mixture.initial = {'code': 1.0}: lacks the domains: prose; write a share for "
            "each domain, or leave initial out for a uniform mixture",
        ),
        (
            {"tune": {"mixture": {"initial": {"code": 1, "prose": 1, "prosa": 1}}}},
            "tune.mixture.initial.prosa = 1.0: unknown domain; did you mean prose? (allowed: "
            "code, prose)",
        ),
        (
            {"tune": {"mixture": {"initial": {"code": 1, "prose": -1}}}},
            "tune.mixture.initial.prose = -1.0: must be 0 or above; weights are normalised to "
            "sum to one",
        ),
        (
            {"tune": {"mixture": {"initial": {"code": 0, "prose": 0}}}},
            "tune.mixture.initial = {'code': 0.0, 'prose': 0.0}: must have a weight above 0; "
            "weigh at least one domain",
        ),
        (
            {"tune": {"mixture": {"floor": 0.3, "initial": {"code": 3, "prose": 1}}}},
            "tune.mixture.initial.prose = 1.0: a share of 0.25; must be above "
            "tune.mixture.floor, 0.3; raise it, or lower the floor",
        ),
        (
            {"tune": {"mixture": {"floor": 0.25, "initial": {"code": 3, "prose": 1}}}},
            "tune.mixture.initial.prose = 1.0: a share of 0.25; must be above "
            "tune.mixture.floor, 0.25; raise it, or lower the floor",
        ),
        (
            {"data.target": {"cod": 1}},
            "data.target.cod = 1.0: unknown domain; did you mean code? (allowed: code, prose)",
        ),
        (
            {"data.target": {"code": 2, "prose": -0.5}},
            "data.target.prose = -0.5: must be 0 or above; weights are normalised to sum to one",
        ),
        (
            {"data.target": {}},
            "data.target = {}: must have a weight above 0; weigh at least one domain",
        ),
        (
            {"data.domains": {"code": {}, "prose": {"path": "x"}}},
            "data.domains.code = {}: must have exactly one of shipped, path, jsonl, parquet, csv, "
            "arrow, dataset, saved; write one of them",
        ),
        (
            {"data.domains.code.path": "x"},
            "data.domains.code = {'shipped': 'code_stdlib', 'path': 'x'}: must have exactly one "
            "of shipped, path, jsonl, parquet, csv, arrow, dataset, saved; keep one of them",
        ),
        (
            {"data.domains.code.column": "text"},
            "data.domains.code.column = 'text': goes with jsonl, parquet, csv, arrow, dataset, "
            "saved only; take it out",
        ),
        (
            {"data.domains.prose": {"jsonl": "x", "revision": "main"}},
            "data.domains.prose.revision = 'main': goes with dataset only; take it out",
        ),
        (
            {"data.domains.prose": {"jsonl": "x", "prompt": "question"}},
            "data.domains.prose = {'prompt': 'question'}: lacks completion: prompt and completion "
            "go together; write completion: NAME OF ITS COLUMN",
        ),
        (
            {"data.domains.prose": {"jsonl": "x", "prompt": "a", "completion": "b", "column": "c"}},
            "data.domains.prose = {'column': 'c', 'prompt': 'a', 'completion': 'b'}: must have one "
            "of column, prompt with completion, messages, or input_ids; keep one of them",
        ),
        (
            {"data.domains.code.use": "train"},
            "data.target.code = 1.0: domain code has use: train: none of its documents is held "
            "out; give it no weight, or use: all",
        ),
        (
            {"data.domains.code.use": "test", "data.domains.prose.use": "validation"},
            "data.domains = {'code': 'test', 'prose': 'validation'}: names no domain to train on; "
            "give one use: all or use: train, or take use out",
        ),
        (
            {"data.domains.prose.use": "validation", "data.target": {"prose": 1}},
            "data.target = {'prose': 1.0}: weighs no domain with documents in the test split; "
            "weigh one of use: test, or of use: all",
        ),
        (
            {
                "data.domains.prose.use": "validation",
                "data.domains.prose.corrupt": {"share": 0.1},
            },
            "data.domains.prose.corrupt = {'share': 0.1, 'ways': ('shuffle', 'repeat'), 'seed': "
            "0}: has no effect on a domain of use validation, which is not trained on; take it out",
        ),
        (
            {"data.domains.prose.use": "test", "tune.loss_weights": {}},
            "tune.loss_weights = {'per': 'domain', 'windows': 1, 'initial': None, 'buckets': None}"
            ": needs two domains or more to train on in data.domains; add a domain, or take "
            "tune.loss_weights out",
        ),
        (
            {"data.domains.prose": {"jsonl": "x", "labels": "quality"}},
            "data.domains.prose.labels = 'quality': says which of input_ids count, which the "
            "domain lacks; write input_ids: NAME OF ITS COLUMN, or label for a class of documents",
        ),
        (
            {
                "data.domains.prose": {
                    "jsonl": "x",
                    "input_ids": "ids",
                    "labels": "a",
                    "loss_mask": "b",
                }
            },
            "data.domains.prose = {'labels': 'a', 'loss_mask': 'b'}: must have one of labels and "
            "loss_mask; keep one of them",
        ),
        (
            {"data.domains.prose": {"jsonl": "x", "messages": "chat"}},
            "data.domains.prose.messages = 'chat': needs a tokenizer with a chat template; name "
            "one as data.tokenizer, or give prompt and completion columns",
        ),
        (
            {"data.domains.prose": {"dataset": "x", "streaming": True}},
            "data.domains.prose.streaming = True: needs a budget of tokens; write max_tokens, e.g. "
            "max_tokens: 5e7",
        ),
        (
            {"data.domains.prose": {"jsonl": "x", "max_tokens": 0}},
            "data.domains.prose.max_tokens = 0: must be a whole number of 1 or above; leave it out "
            "for the default, null",
        ),
        (
            {"data.batch_size": 1},
            "data.batch_size = 1: must be at least the number of domains, 2; raise it: the "
            "hypergradient needs every domain in each batch",
        ),
        (
            {"data.held_out": {"validation": 0.5, "test": 0.5}},
            "data.held_out.validation = 0.5: with test = 0.5 leaves nothing to train on; must sum "
            "to less than 1; lower one of them",
        ),
        (
            {"model.pretrained": "some/model"},
            "model = {'config': {'model_type': 'llama', 'max"
            "…dings': 64}, 'pretrained': 'some/model'}: must have exactly one of config and "
            "pretrained; keep one of them",
        ),
        (
            {"model.config": None},
            "model = {}: must have exactly one of config and pretrained; write one of them",
        ),
        (
            {"model.revision": "main"},
            "model.revision = 'main': is of a pretrained model; write model.pretrained, or take "
            "it out",
        ),
        (
            {"tune.learning_rates.per": ["attn", "(mlp"]},
            "tune.learning_rates.per[1] = '(mlp': not a regular expression: missing ), "
            "unterminated subpattern at position 0; write one as Python's `re` reads it, e.g. "
            "self_attn",
        ),
        (
            {"tune.learning_rates.per": {"attention": "*"}},
            "tune.learning_rates.per.attention = '*': not a regular expression: nothing to "
            "repeat at position 0; write one as Python's `re` reads it, e.g. self_attn",
        ),
        (
            {"tune.learning_rates.per": []},
            "tune.learning_rates.per = (): names no group; write at least one regular expression",
        ),
        (
            {"inner.optimizer.schedule": {"kind": "wsd", "warmup": 0.4, "decay": 0.7}},
            "inner.optimizer.schedule.decay = 0.7: with warmup = 0.4 exceeds the training; must "
            "sum to at most 1; lower one of them",
        ),
    ],
)
def test_a_broken_rule_is_one_fault(tree, changes, line):
    for path, value in changes.items():
        put(tree, path, value)
    _, faults = reading.collect(tree)
    assert [str(fault) for fault in faults] == [line]


def test_no_domain_at_all(tree):
    tree["data"]["domains"] = {}
    _, faults = reading.collect(tree)
    assert str(faults[0]) == (
        "data.domains = {}: names no domain; write one, e.g. `prose: {shipped: NAME}` or "
        "`mine: {path: FILE}`"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"tune.learning_rates.windows": 20},
        {"tune": {"mixture": {"floor": 0.24, "initial": {"code": 3, "prose": 1}}}},
        {"tune": {"mixture": {"floor": 0.49}}},
        {"data.target": {"code": 0, "prose": 3}},
        {"data.batch_size": 2},
        {"data.sequence_length": 64},
        {"inner.optimizer.schedule": {"kind": "wsd", "warmup": 0.5, "decay": 0.5}},
    ],
)
def test_the_edge_of_a_rule_is_allowed(tree, changes):
    for path, value in changes.items():
        put(tree, path, value)
    assert reading.collect(tree)[1] == ()


def test_rules_are_left_out_where_a_section_is_broken(tree):
    recipe = reading.parse(tree, "memory")
    sound = vars(recipe)
    assert list(checks.check(sound)) == []
    assert list(checks.check({})) == []


def test_every_module_of_the_package_is_looked_through():
    names = {name for _, name, _ in pkgutil.iter_modules(checks.__path__)}
    assert names == {module.__name__.rsplit(".", 1)[1] for module in checks.MODULES}
    assert all(any(checks.rules_of(module)) for module in checks.MODULES)


def a_module(*functions):
    """A module that these functions are written in."""
    module = ModuleType("rules_of_a_test")
    for function in functions:
        function.__module__ = module.__name__
        setattr(module, function.__name__, function)
    return module


def test_a_rule_is_a_public_function_and_is_given_what_its_arguments_name(tree, monkeypatch):
    def mixture_of_data(data, tune_mixture):
        yield Fault("here", (data.batch_size, tune_mixture.windows), "said")

    def _helper(anything):
        raise AssertionError

    rules = tuple(checks.rules_of(a_module(mixture_of_data, _helper)))
    assert rules == ((mixture_of_data, ("data", "tune_mixture")),)
    monkeypatch.setattr(checks, "RULES", rules)
    sections, _ = reading.collect({**tree, "tune": {"mixture": {"windows": 3}}})
    assert [fault.value for fault in checks.check(sections)] == [(8, 3)]
    without, _ = reading.collect({**tree, "tune": {"learning_rates": {}}})
    assert list(checks.check(without)) == []
    assert list(checks.check({"data": sections["data"]})) == []


@pytest.mark.parametrize("name", ["mixture", "tune_mixtures", "seed_tune", "anything"])
def test_an_argument_that_is_no_section_is_refused(name):
    def odd(**sections):
        yield from ()

    odd.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD)])
    with pytest.raises(TypeError, match=f"rule odd of rules_of_a_test: the argument {name} is no"):
        list(checks.rules_of(a_module(odd)))


def test_rules_are_annotated_as_the_schema_is():
    for rule, names in checks.RULES:
        hints = get_type_hints(rule)
        for name in names:
            expected = set(members_of(checks.SECTIONS[name])) - {NoneType}
            assert set(members_of(hints[name])) == expected, (rule, name)


def test_every_field_of_a_source_is_a_kind_or_an_option():
    names = {field.name for field in dataclasses.fields(schema.SourceSpec)}
    assert names == {*KINDS, *OPTIONS, "max_tokens", "corrupt", "use"}
