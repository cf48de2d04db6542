"""Damage is seen, named, and gone around."""

import errno

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from metatune.runs import manifest
from metatune.runs.checkpoints import RunCheckpoints
from metatune.runs.faults import RunFolderError
from metatune.runs.space import DiskFull


@pytest.fixture
def three(tmp_path):
    """Checkpoints of steps 1 to 3, of which two stay."""
    kept = RunCheckpoints(tmp_path / "checkpoints", ("arrays", "numbers"), keep=2)
    for step in (1, 2, 3):
        save(kept, step)
    kept.close()
    return tmp_path / "checkpoints"


def save(kept, step):
    arrays = {"a": jnp.arange(300.0) * step}
    kept.save(
        step,
        arrays=ocp.args.StandardSave(arrays),
        numbers=ocp.args.JsonSave({"step": step}),
    )


def latest(folder, said):
    kept = RunCheckpoints(folder, ("arrays", "numbers"), keep=2)

    def read(step):
        like = {"a": jnp.zeros(300)}
        arrays = kept.restored(step, arrays=ocp.args.StandardRestore(like))
        np.testing.assert_array_equal(arrays["a"], np.arange(300.0) * step)
        return kept.restored(step, numbers=ocp.args.JsonRestore())["step"]

    try:
        found = kept.latest(read, said.append)
        if found is not None:
            save(kept, found + 1)  # what was damaged is in nobody's way
        return found
    finally:
        kept.close()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    held = bytearray(path.read_bytes())
    if not held:
        held = bytearray(b"x")
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def lose(path):
    path.unlink()


def test_the_newest_is_taken(three):
    said = []
    assert latest(three, said) == 3
    assert said == []
    assert sorted(int(path.name) for path in three.iterdir()) == [3, 4]


@pytest.mark.parametrize("how", [cut, flip, lose])
def test_whatever_is_damaged_the_one_before_is_taken(three, tmp_path, how):
    relative = [path.relative_to(three / "3") for path in files(three / "3")]
    assert len(relative) > 10
    for number, path in enumerate(relative):
        copy = tmp_path / f"{how.__name__}{number}"
        copy_tree(three, copy)
        how(copy / "3" / path)
        said = []
        assert latest(copy, said) == 2, path
        assert len(said) == 1
        assert f"checkpoint {copy / '3'} is damaged: " in said[0]
        assert "going on from 2, so that steps 3 to 3 are done again" in said[0]


def copy_tree(source, target):
    import shutil

    shutil.copytree(source, target)


def test_if_none_is_whole_all_are_named_and_stay(three):
    flip(next(path for path in files(three / "3") if "/d/" in str(path)))
    lose(three / "2" / manifest.MANIFEST)
    with pytest.raises(RunFolderError, match="no checkpoint is whole; put one back") as refused:
        latest(three, [])
    lines = str(refused.value).splitlines()[1:]
    assert lines[0].startswith("  3: ") and lines[0].endswith("has other bytes than were written")
    assert lines[1] == f"  2: has no {manifest.MANIFEST}, which is written last"
    assert {path.name for path in three.iterdir()} == {"2", "3"}


def test_those_of_before_the_manifests_are_tried(three):
    for step in ("2", "3"):
        lose(three / step / manifest.MANIFEST)
    assert latest(three, []) == 3
    for step in ("3", "4"):
        (three / step / manifest.MANIFEST).unlink(missing_ok=True)
    cut(three / "4" / "arrays" / "_METADATA")
    said = []
    assert latest(three, said) == 3
    assert "4 is damaged: can't be read: " in said[0]


def test_a_full_disk_leaves_nothing_half_written(three, monkeypatch):
    kept = RunCheckpoints(three, ("arrays", "numbers"), keep=2)

    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(DiskFull, match=r"checkpoints/4: the disk is full: 132,272 bytes needed, "):
        save(kept, 4)
    kept.close()
    monkeypatch.undo()
    assert latest(three, []) == 3
