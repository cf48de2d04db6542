"""Commands that don't join others, started as several processes."""

import pytest
from typer.testing import CliRunner

from metatune.cli.commands import COMMANDS, JOINING, READING, app
from metatune.runs import processes

GIVEN = {processes.COORDINATOR: "host:1234", processes.COUNT: "2", processes.INDEX: "1"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(JOINING) - set(READING)))
def test_each_is_refused_before_it_does_anything(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = {
        "transfer": ["run", "width=2"],
        "cp": ["quickstart", "out.yaml"],
        "export": ["run", "--to", "json", "--out", "out"],
        "bench": [],
        "score": ["run", "text.jsonl", "--out", "out"],
    }
    arguments = [name, *typed.get(name, ["run"])]
    done = CliRunner().invoke(app, arguments, env=GIVEN)
    assert done.exit_code == 2, done.output
    assert done.stderr == (
        f"error: metatune {name} is for one process, and METATUNE_COORDINATOR = host:1234 says "
        "that it is started as several, which would get in each other's way; start it once (srun "
        "--ntasks=1, mpirun -n 1), without METATUNE_COORDINATOR\n"
    )
    assert not list(tmp_path.iterdir())


def test_an_environment_that_makes_no_sense_is_told(tmp_path):
    done = CliRunner().invoke(app, ["verdict", str(tmp_path)], env={processes.INDEX: "1"})
    assert done.exit_code == 2
    assert done.stderr.startswith("error: METATUNE_PROCESS without METATUNE_COORDINATOR and")


def test_one_of_one_process_is_let_through(tmp_path):
    one = {**GIVEN, processes.COUNT: "1", processes.INDEX: "0"}
    done = CliRunner().invoke(app, ["verdict", str(tmp_path / "nothing")], env=one)
    assert done.exit_code == 2 and "nothing" in done.stderr
    assert "is for one process" not in done.stderr
