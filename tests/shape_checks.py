"""Checks types and shapes of signatures while tests run, where METATUNE_CHECK_SHAPES is set.

jaxtyping's import hook then puts `check` around all functions of `PACKAGES`. Tests take about 1.4
times the processor time (closures are checked anew in each trace), so that `.ci/run` asks for it
for the tests of these packages alone. Nothing is checked in what users run.
"""

import os

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

PACKAGES = ["metatune.hypergrad", "metatune.inner", "metatune.tunables"]
ON = os.environ.get("METATUNE_CHECK_SHAPES", "0") != "0"

# A whole number is a float to Python's type checkers, too.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))

if ON:
    install_import_hook(PACKAGES, f"{__name__}.check")
