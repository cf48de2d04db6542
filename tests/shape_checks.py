"""What checks types and shapes of signatures while tests run.

jaxtyping's import hook puts it around all functions of the packages that `--jaxtyping-packages` in
pyproject.toml names. Nothing is checked in what users run.
"""

from beartype import BeartypeConf, beartype

# A whole number is a float to Python's type checkers, too.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
