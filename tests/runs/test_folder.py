"""Whose a folder is, what may become of it, and that nothing is lost on the way."""

import os

import pytest

from metatune.runs import folder as folders
from metatune.runs.faults import RunFolderError
from metatune.runs.folder import opened, refuse_unusable
from metatune.runs.kinds import MARKER, RUN, TRAINING, kind_of
from metatune.runs.lock import locked

FRESH = {"resume": False, "overwrite": False}
RESUME = {"resume": True, "overwrite": False}
OVERWRITE = {"resume": False, "overwrite": True}
GIVEN = {"data_sha256": {"code": "a1"}, "tokenizer_sha256": "b2", "weights_sha256": None}
OTHER = {RUN: TRAINING, TRAINING: RUN}


def begin(path, kind, text="first", given=GIVEN, options=FRESH, **more):
    files = {kind.sign: text, "recipe.yaml": text}
    with opened(path, kind, files, given, **{**options, **more}):
        pass


def names(path):
    return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))


def asides(path):
    return [entry for entry in path.parent.iterdir() if folders.ASIDE in entry.name]


@pytest.mark.parametrize("kind", OTHER)
def test_a_folder_is_neither_overwritten_nor_resumed_unasked(tmp_path, kind):
    path = tmp_path / "a" / "out"
    begin(path, kind)
    assert kind_of(path) == kind
    with pytest.raises(
        RunFolderError, match=f"holds a {kind.name} already; --resume to go on.*--overwrite"
    ):
        begin(path, kind)
    begin(path, kind, options=RESUME)
    with pytest.raises(RunFolderError, match="exclude each other"):
        refuse_unusable(path, kind, resume=True, overwrite=True)
    with pytest.raises(RunFolderError, match=f"holds no {kind.name} to resume"):
        begin(tmp_path / "new", kind, options=RESUME)
    with pytest.raises(RunFolderError, match="is a file; give a folder"):
        begin(path / kind.sign, kind)


@pytest.mark.parametrize("options", [FRESH, RESUME, OVERWRITE])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("kind", OTHER)
def test_what_the_other_command_wrote_is_refused_untouched(tmp_path, kind, marked, options):
    path = tmp_path / "out"
    begin(path, OTHER[kind])
    (path / "metrics.jsonl").write_text("{}\n")
    if not marked:
        (path / MARKER).unlink()
    before = names(path)
    with pytest.raises(RunFolderError, match=f"holds a {OTHER[kind].name}, which is .*not a"):
        begin(path, kind, options=options)
    assert names(path) == before and not asides(path)


@pytest.mark.parametrize("kind", OTHER)
def test_a_stranger_s_files_are_found_before_anything_is_touched(tmp_path, kind):
    path = tmp_path / "out"
    path.mkdir()
    (path / "recipe.yaml").write_text("mine")
    with pytest.raises(RunFolderError, match=rf"holds no {kind.name} \(it has recipe.yaml\)"):
        begin(path, kind, options=OVERWRITE)
    (path / "recipe.yaml").unlink()
    begin(path, kind)
    (path / "precious.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"can't be overwritten.*\(precious.txt\)"):
        begin(path, kind, "second", options=OVERWRITE)
    assert (path / kind.sign).read_text() == "first"
    begin(path, kind, options=RESUME)


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_replaced_waits_for_a_checkpoint(tmp_path, kind):
    path = tmp_path / "out"
    begin(path, kind)
    begin(path, kind, "second", options=OVERWRITE)
    begin(path, kind, "third", options=OVERWRITE)
    assert sorted((aside / kind.sign).read_text() for aside in asides(path)) == ["first", "second"]
    with opened(path, kind, {kind.sign: "third"}, GIVEN, resume=True, overwrite=False) as held:
        assert len(asides(path)) == 2
        held.checkpointed()
        assert asides(path) == []
    assert (path / kind.sign).read_text() == "third"


@pytest.mark.parametrize("at", ["keep", "mark", "replace"])
def test_a_kill_while_it_is_replaced_is_undone(tmp_path, monkeypatch, at):
    path, said = tmp_path / "out", []
    begin(path, TRAINING)
    place = {"keep": folders.inputs}.get(at, folders)

    def killed(*_, **__):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(place, at, killed)
        with pytest.raises(SystemExit):
            begin(path, TRAINING, "second", options=OVERWRITE)
    assert len(asides(path)) == 1
    begin(path, TRAINING, options=RESUME, say=said.append)
    assert (path / TRAINING.sign).read_text() == "first"
    assert not asides(path)
    assert len(said) == 1 and "an earlier --overwrite was cut off before it began" in said[0]


def test_a_folder_through_a_link_is_replaced_behind_it(tmp_path):
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk" / "real", tmp_path / "out")
    begin(tmp_path / "out", RUN)
    begin(tmp_path / "out", RUN, "second", options=OVERWRITE)
    assert (tmp_path / "disk" / "real" / "recipe.yaml").read_text() == "second"
    assert len(asides(tmp_path / "disk" / "real")) == 1


def test_a_folder_in_use_is_refused_however_it_is_wanted(tmp_path):
    begin(tmp_path / "out", RUN)
    with locked(tmp_path / "out"):
        for options in (RESUME, OVERWRITE):
            with pytest.raises(RunFolderError, match="is in use by process"):
                resume, overwrite = options["resume"], options["overwrite"]
                refuse_unusable(tmp_path / "out", RUN, resume=resume, overwrite=overwrite)
            with pytest.raises(RunFolderError, match="is in use by process"):
                begin(tmp_path / "out", RUN, options=options)


def test_other_inputs_are_refused_by_name(tmp_path):
    begin(tmp_path, RUN)
    changed = {**GIVEN, "data_sha256": {"code": "a2", "drama": "c3"}, "weights_sha256": "d4"}
    with pytest.raises(RunFolderError, match="begun with other inputs") as refused:
        begin(tmp_path, RUN, given=changed, options=RESUME)
    assert str(refused.value).splitlines()[1:] == [
        "  data_sha256.code: 'a1' then, 'a2' now",
        "  data_sha256.drama: None then, 'c3' now",
        "  weights_sha256: None then, 'd4' now",
    ]
    begin(tmp_path, RUN, options=RESUME)


def test_a_damaged_marker_is_named(tmp_path):
    begin(tmp_path, RUN)
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / MARKER).write_text('{"format": "meta')
    with pytest.raises(RunFolderError, match="its .metatune.json can't be read"):
        begin(tmp_path, RUN, options=RESUME)
    (tmp_path / MARKER).unlink()
    begin(tmp_path, RUN, options=RESUME)
