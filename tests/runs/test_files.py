"""Files are whole or not there; a full disk is said as what it is."""

import errno
import os

import pytest

from metatune.runs import files
from metatune.runs.faults import RunFolderError
from metatune.runs.files import append_line, mend, replace, whole_lines
from metatune.runs.space import DiskFull, is_full, room_for


def test_a_line_that_was_cut_off_is_left_out_and_mended(tmp_path):
    log = tmp_path / "log.jsonl"
    append_line(log, {"at": 0})
    with log.open("a") as file:
        file.write('{"at": 1, "lo')
    assert whole_lines(log, "delete it") == [{"at": 0}]
    mend(log)
    append_line(log, {"at": 1})
    assert whole_lines(log, "delete it") == [{"at": 0}, {"at": 1}]
    mend(tmp_path / "none")
    assert whole_lines(tmp_path / "none", "delete it") == []


def test_a_line_that_is_none_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"at": 0}\n{"at\xff: 1}\n{"at": 2}\n')
    with pytest.raises(RunFolderError, match=r"log.jsonl: line 2 is damaged .*delete the line"):
        whole_lines(tmp_path / "log.jsonl", "delete the line")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace(path, "old")

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull) as stop:
        replace(path, "new and longer")
    assert f"{path}: the disk is full: 14 bytes needed, " in str(stop.value)
    assert " free; free some, or raise the quota, then go on with the same command, with" in str(
        stop.value
    )
    assert os.listdir(tmp_path) == ["file"] and path.read_text() == "old"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "no"), True),
        (OSError(errno.EDQUOT, "no"), True),
        (OSError(errno.EACCES, "no"), False),
        (ValueError("RESOURCE_EXHAUSTED: write: [OS error 28: ENOSPC No space left on device]"), 1),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory on the device"), False),
        (ExceptionGroup("of a pool", [KeyError(1), OSError(errno.ENOSPC, "no")]), True),
    ],
)
def test_libraries_say_it_in_many_ways(tmp_path, error, full):
    assert is_full(error) == bool(full)
    with pytest.raises(DiskFull if full else type(error)), room_for(tmp_path / "x", 5):
        if not full:
            raise error
        raise RuntimeError("around it") from error


def test_what_can_not_fit_is_not_begun(tmp_path):
    with pytest.raises(DiskFull, match="bytes needed"), room_for(tmp_path / "x", 2**60):
        pytest.fail("begun")
