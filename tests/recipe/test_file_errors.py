"""Errors of the operating system as sentences."""

import errno
import os
from pathlib import Path

import pytest

from metatune.recipe.file_errors import SAID, problem, refuse_unmakeable, sentence


def raised(act):
    with pytest.raises(OSError) as error:
        act()
    return sentence(error.value)


def test_what_is_in_the_way_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    below = file / "deep" / "run"
    said = f"{file} is a file, where a folder is needed; give another path"
    assert raised(lambda: below.mkdir(parents=True)).endswith(f": {said}")
    assert raised(lambda: below.open()) == f"{below}: {said}"
    assert raised(lambda: refuse_unmakeable(below)) == f"{below}: {said}"
    assert raised(lambda: (file / "x").write_text("")) == f"{file / 'x'}: {said}"


def test_a_path_is_said_with_what_is_wrong_and_what_to_do(tmp_path):
    missing = tmp_path / "no" / "file"
    assert raised(missing.read_text) == (
        f"{missing}: isn't there; check its spelling, and that it can be made there"
    )
    assert raised(tmp_path.read_text) == (
        f"{tmp_path}: is a folder, where a file is needed; name a file"
    )
    long = tmp_path / ("y" * 300)
    said = raised(long.read_text)
    assert said.startswith(str(tmp_path)[:20]) and "…" in said
    assert said.endswith(": has a name that is too long for its disk; give a shorter one")
    both = raised(lambda: missing.rename(tmp_path / "other"))
    assert both.startswith(f"{tmp_path / 'other'}: isn't there")


@pytest.mark.parametrize("number", [*SAID, errno.EXDEV])
def test_no_number_is_said(number):
    error = OSError(number, os.strerror(number), "there")
    said = sentence(error)
    assert said.startswith("there: ") and "; " in said and "Errno" not in said
    assert problem(error) in said
    assert sentence(OSError(number, os.strerror(number))) == said.removeprefix("there: ")


def test_the_words_of_a_library_stay():
    assert sentence(OSError("can't reach the hub")) == "can't reach the hub"


def test_places_that_can_be_made_are_let_be(tmp_path, monkeypatch):
    refuse_unmakeable(tmp_path / "new" / "run")
    monkeypatch.chdir(tmp_path)
    refuse_unmakeable(Path("run"))
    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert raised(lambda: refuse_unmakeable(tmp_path / "new" / "run")) == (
        f"{tmp_path / 'new' / 'run'}: this user may not read or write there; change the "
        "permissions, or give another path"
    )
