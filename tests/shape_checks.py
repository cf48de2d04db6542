"""Checks types and shapes of signatures while tests run, where METATUNE_CHECK_SHAPES is set.

jaxtyping's import hook then puts `check` around all functions of `PACKAGES`. That takes processor
time, so that `.ci/run` asks for it for the tests of these packages alone. Nothing is checked in
what users run.
"""

import os
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

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


if ON:
    install_import_hook(PACKAGES, f"{__name__}.check")
