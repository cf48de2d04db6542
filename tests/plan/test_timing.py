"""What is timed, what is kept of it, and what is told meanwhile."""

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from metatune.data.cache import CacheError
from metatune.plan import cache, compiling, progress, timing
from metatune.plan.compiling import Program, analysed
from metatune.plan.timing import Line, Probe, Samples, summary, timed


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("METATUNE_CACHE", str(tmp_path))
    return tmp_path / "plan"


@pytest.fixture
def told():
    heard = []
    return SimpleNamespace(heard=heard, tell=lambda doing, left: heard.append((doing, left)))


def lowering(factor):
    return {"product": lambda: jax.jit(lambda x: jnp.sin(x @ x) * factor).trace(jnp.ones((9, 9)))}


def test_a_program_is_compiled_once_in_all_processes(folder, told, monkeypatch):
    first = analysed(lowering(2.0), told.tell)["product"]
    exact = jax.jit(lambda x: jnp.sin(x @ x) * 2.0).lower(jnp.ones((9, 9))).compile()
    analysis = exact.memory_analysis()
    assert analysis is not None and first.temporary == analysis.temp_size_in_bytes
    assert [doing for doing, _ in told.heard] == ["preparing product", "compiling product"]
    monkeypatch.setattr(compiling, "_compile", lambda lowered: pytest.fail("compiled again"))
    again = analysed(lowering(2.0), told.tell)["product"]
    assert again._replace(lowered=None) == first._replace(lowered=None)
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        analysed(lowering(3.0), told.tell)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{}",
        '{"temporary_bytes": "many", "compilation_seconds": 1}',
        '{"temporary_bytes": 1, "compilation_seconds": 1, "timings": {"of": {"steps": 1}}}',
    ],
)
def test_a_damaged_entry_is_replaced(damage, folder, told):
    key = analysed(lowering(2.0), told.tell)["product"].key
    whole = json.loads((folder / f"{key}.json").read_text())
    (folder / f"{key}.json").write_text(damage)
    assert cache.read(key) == {}
    analysed(lowering(2.0), told.tell)
    again = json.loads((folder / f"{key}.json").read_text())
    assert again["temporary_bytes"] == whole["temporary_bytes"]
    assert [path.name for path in folder.iterdir()] == [f"{key}.json"]


def test_another_device_or_version_has_entries_of_its_own(monkeypatch):
    key = cache.key_of("program")
    assert cache.key_of("program") == key
    assert cache.key_of("another") != key
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    assert cache.key_of("program") != key


def test_a_cache_that_can_t_be_written_says_which_variable_names_it(folder):
    folder.parent.joinpath("plan").write_text("a file")
    with pytest.raises(CacheError, match="can't be written: .*; set METATUNE_CACHE"):
        cache.write("key", {})


class Clock:
    """Time that passes only where a probe says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def probe(self, name, seconds):
        """A program whose run takes `seconds(steps)`."""

        def run(program, steps):
            self.now += seconds(steps)

        return Probe(Program(name, f"key-{name}", None, 7, 1.0), 16, run)


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(
        timing.compiling, "executables", lambda programs, tell: {p.name: None for p in programs}
    )
    return Clock(monkeypatch)


def test_a_line_through_no_step_and_a_few(clock, told):
    probe = clock.probe("forward", lambda steps: 0.5 + 0.1 * steps)
    found = timed([probe], lambda lines: 100.0, told.tell)
    assert found.best["forward"] == pytest.approx((0.5, 0.1))
    assert Line(0.5, 0.1).of(20, 16) == pytest.approx(2 * 0.5 + 20 * 0.1)


@pytest.mark.parametrize(("step", "rounds"), [(10.0, 3), (0.1, 5), (0.001, 9)])
def test_rounds_end_with_what_is_allowed(step, rounds, clock, told):
    """Of 100 seconds 3 may be taken, a round of none and three or of one step at a time."""
    probe = clock.probe("forward", lambda steps: step * steps + 0.1 * step)
    found = timed([probe], lambda lines: 100.0, told.tell)
    seconds = step * (3.2 if step < 0.3 else 1.2)
    expected = min(9, max(3, math.ceil(3.0 / seconds - 1e-9)))
    assert len(found.rounds) == expected
    assert expected == rounds or step == 0.1


def test_calm_timings_are_kept_and_others_taken_again(clock, told):
    calm = clock.probe("forward", lambda steps: 1.0 + steps)
    first = timed([calm], lambda lines: 1.0, told.tell)
    broken = calm._replace(run=lambda *_: pytest.fail("run again"))
    assert timed([broken], lambda lines: 1.0, told.tell) == first
    wild = iter(range(1, 1000))
    probe = clock.probe("wild", lambda steps: steps * next(wild) ** 3 + 0.1)
    timed([probe], lambda lines: 1.0, told.tell)
    with pytest.raises(pytest.fail.Exception, match="run again"):
        timed([probe._replace(run=broken.run)], lambda lines: 1.0, told.tell)


def test_a_round_in_which_a_step_took_no_time_still_has_an_order():
    lines = summary({"forward": Samples(1, (2.0, 1.0), (1.0, 2.0))})
    assert lines.best["forward"].step > 0
    assert all(each["forward"].step > 0 for each in lines.rounds)


def test_progress_tells_which_way_and_how_long_and_is_not_silent(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tell = progress.told(progress.spoken(said.append, quiet_seconds=10), "mixflow", 2, 3)
    for second in range(25):
        now[0] = float(second)
        tell("compiling pullback, forward", 30.0 - second)
    tell("timing forward: round 1 of 3", math.nan)
    assert said == [
        "mixflow (2 of 3): compiling pullback, forward, about 30 s left",
        "mixflow (2 of 3): compiling pullback, forward, about 20 s left",
        "mixflow (2 of 3): compiling pullback, forward, about 10 s left",
        "mixflow (2 of 3): timing forward: round 1 of 3",
    ]
