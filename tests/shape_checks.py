"""Checks types and shapes of signatures while tests run, where METATUNE_CHECK_SHAPES is set.

jaxtyping's import hook then puts `check` around all functions of `PACKAGES`. That takes processor
time, so that `.ci/run` asks for it for the tests of these packages alone. Nothing is checked in
what users run.
"""

import os
import types
from typing import Any, Union, get_args, get_origin

from beartype import BeartypeConf, beartype
from jaxtyping import _typeguard, install_import_hook

PACKAGES = ["metatune.hypergrad", "metatune.inner", "metatune.tunables"]
ON = os.environ.get("METATUNE_CHECK_SHAPES", "0") != "0"

# A whole number is a float to Python's type checkers, too.
written = beartype(conf=BeartypeConf(is_pep484_tower=True))
checkers = {}
"""By signature what beartype has written for it."""


def check(signature):
    """What checks arguments as a signature says, written once for each.

    jaxtyping hands over functions that it makes of signatures and that do nothing else: of a
    closure another one each time that it is defined, hence in each trace, and of one without
    annotations one that says `Any` throughout. A type with a shape is another object each time that
    it is written down, so that annotations are compared by what they say.
    """
    if all(annotation is Any for annotation in signature.__annotations__.values()):
        return signature
    said = tuple((name, repr(annotation)) for name, annotation in signature.__annotations__.items())
    defaults = len(signature.__defaults__ or ()), *(signature.__kwdefaults__ or ())
    key = (signature.__module__, signature.__qualname__, signature.__code__, defaults, said)
    if key not in checkers:
        checkers[key] = written(signature)
    return checkers[key]


interpreted = _typeguard.typechecked


def leaf_check(accepts):
    """What checks the nodes of a tree: a function of one argument that refuses by a TypeError.

    jaxtyping makes one for each tree that it looks at, and asks it about each node; it interprets
    the annotation then. Of classes, and unions of them, `isinstance` says the same in a tenth of
    the time.
    """
    (leaf,) = accepts.__annotations__.values()
    kinds = get_args(leaf) if get_origin(leaf) in (Union, types.UnionType) else (leaf,)
    # A whole number is a float to annotations, and isn't to `isinstance`.
    if not all(isinstance(kind, type) and kind not in (float, complex) for kind in kinds):
        return interpreted(accepts)

    def check(x):
        if not isinstance(x, kinds):
            raise TypeError

    return check


if ON:
    _typeguard.typechecked = leaf_check
    install_import_hook(PACKAGES, f"{__name__}.check")
