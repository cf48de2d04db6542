"""What this jaxlib doesn't know is left out of its flags, and said to be."""

import sys

import jax
import pytest
from jax_environment import known

from metatune.fit.process.compilation import set_option


def test_unknown_flags_are_left_out():
    flag = "--xla_backend_optimization_level=1"
    assert known([flag]) == [flag]
    assert known(["--xla_no_such_flag=1", flag, "--xla_nor_this=true"]) == [flag]
    assert known(["--xla_no_such_flag=1"]) == []


def test_a_process_that_dies_of_something_else_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match=r"jaxlib cannot be asked for its flags"):
        known(["--xla_backend_optimization_level=1"])


def test_an_unknown_option_is_left_out_with_a_line(capsys):
    assert not set_option("jax_no_such_option", 1)
    said = f"left out: jax {jax.__version__} has no option jax_no_such_option\n"
    assert capsys.readouterr().err == said
    assert set_option("jax_log_compiles", False)
    assert capsys.readouterr().err == ""
