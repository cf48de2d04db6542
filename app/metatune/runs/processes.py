"""The processes of one run, each with devices of its own, and what all of them must agree on.

JAX brings them together: at the address that `METATUNE_COORDINATOR` names, or as Slurm and Open MPI
say, or, where that is `auto`, by whatever JAX knows of the cluster that it is in (Kubernetes, Cloud
TPU). Nothing here starts a process or talks to one but by JAX's means. Where there is one process,
nothing is done at all.

All processes run the same program on the same recipe. The first writes, and the others write
nothing but their shards of checkpoints. What one of them alone sees, a signal or a folder that
can't be used, is told to all before any of them acts on it, or the others would wait for ever.
"""

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from metatune.runs import stops
from metatune.runs.end_watch import HEARTBEAT_SECONDS, EndWatch
from metatune.runs.faults import RunFolderError
from metatune.runs.last_line import LastLine

COORDINATOR, COUNT, INDEX = "METATUNE_COORDINATOR", "METATUNE_PROCESSES", "METATUNE_PROCESS"
JOIN_SECONDS: Final = "METATUNE_JOIN_SECONDS"
"""For how long processes wait for each other to begin."""
AUTO: Final = "auto"
LAUNCHERS: Final = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""How many processes a launcher that JAX knows has started."""
USUAL_JOIN_SECONDS: Final = 60
CURE: Final = (
    "look whether process 0 runs there, its port can be reached, and all processes are started, or "
    f"set {COORDINATOR}, {COUNT} and {INDEX} otherwise"
)
MISSED: Final = 2
"""Exit code where processes don't come together."""
COLLECTIVE: Final = re.compile(
    "(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED):"
)
"""How XLA says that a program failed between devices."""


class ProcessesError(RuntimeError):
    """The processes of a run can't begin together."""


@dataclass(frozen=True)
class Together:
    """A process among those of a run.

    Attributes:
        index: which it is, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Meeting:
    """Where processes meet, as their environment says.

    Attributes:
        address: host and port of the first; None for what JAX finds out.
        count: how many there are; None likewise.
        index: which this is; None likewise.
        seconds: to wait.
    """

    address: str | None
    count: int | None
    index: int | None
    seconds: int


_here = Together()
_agreed = False
"""Whether all end together."""


def here() -> Together:
    """This process among those of the run."""
    return _here


def first() -> bool:
    """Whether this process writes: the only one, or the first."""
    return _here.index == 0


def meeting(environment: Mapping[str, str] = os.environ) -> Meeting | None:
    """What an environment says of other processes; None where there is one.

    Raises:
        ProcessesError: of what is said a part is missing, or isn't a number in its bounds.
    """
    seconds = _number(environment, JOIN_SECONDS, 1) or USUAL_JOIN_SECONDS
    address = environment.get(COORDINATOR)
    if address == AUTO:
        return Meeting(None, None, None, seconds)
    given = [name for name in (COORDINATOR, COUNT, INDEX) if name in environment]
    if not given:
        started = max(_launched(environment, name) for name in LAUNCHERS)
        return Meeting(None, None, None, seconds) if started > 1 else None
    if len(given) < 3:
        missing = " and ".join(sorted({COORDINATOR, COUNT, INDEX} - set(given)))
        raise ProcessesError(
            f"{' and '.join(given)} without {missing}: give all three, or {COORDINATOR}={AUTO} "
            "where JAX knows the cluster"
        )
    count, index = _number(environment, COUNT, 1), _number(environment, INDEX, 0)
    port = (address or "").rpartition(":")[2]
    if not port.isdecimal() or not (address or "").rpartition(":")[0]:
        raise ProcessesError(
            f"{COORDINATOR} = {address}: must be HOST:PORT of the first process, or {AUTO}"
        )
    if count is None or index is None or index >= count:
        raise ProcessesError(
            f"{INDEX} = {index}: must be from 0 to {(count or 1) - 1}, as {COUNT} = {count}"
        )
    return Meeting(address, count, index, seconds) if count > 1 else None


def refuse_several(command: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuses a command that doesn't join others where it is started several times.

    Args:
        command: what was typed, for the error.
        environment: of this process.

    Raises:
        ProcessesError: the environment tells of others, or makes no sense.
    """
    if meeting(environment) is None:
        return
    said = next(name for name in (COORDINATOR, *LAUNCHERS) if name in environment)
    raise ProcessesError(
        f"{command} is for one process, and {said} = {environment[said]} says that it is started "
        "as several, which would get in each other's way; start it once (srun --ntasks=1, mpirun "
        f"-n 1), without {COORDINATOR}"
    )


@contextmanager
def joined() -> Iterator[Together]:
    """Within it, the processes that the environment tells of are one run; before any use of JAX.

    Where another process ends, this one does, with what that leaves.

    Raises:
        ProcessesError: the environment is wrong, or the others don't come.
    """
    global _here, _agreed
    where = meeting()
    if where is None:
        yield _here
        return
    _here, _agreed = _joined(where), False
    last, output, errors = LastLine(), sys.stdout, sys.stderr
    watch = EndWatch(_here.index, _here.count, last)
    printed = output if first() else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = last.of(printed), last.of(errors)
    try:
        with stops.before_the_end(watch.close):
            yield _here
    except Exception as error:
        if _is_of_others(error):
            watch.expect_an_end()
        watch.close()
        watch.tell(
            f"{type(error).__name__}: {error}"
        )  # which is printed once this process has left
        raise
    else:
        _agreed = True
    finally:
        if _agreed:
            wait()  # for the first, which may still write
        watch.close()
        sys.stdout, sys.stderr = output, errors
        if _agreed:
            watch.leave()
        _here = Together()


def gathered(text: str) -> list[str]:
    """What each process says, in their order, the same list on all of them."""
    if _here.count == 1:
        return [text]
    import numpy as np
    from jax.experimental import multihost_utils

    said = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(said)))).reshape(-1)
    padded = np.zeros(max(1, int(lengths.max())), np.uint8)
    padded[: len(said)] = said
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


def wait() -> None:
    """Waits for all other processes to come here, too."""
    gathered("")


def refuse_different(made_of: Mapping[str, Any]) -> None:
    """Refuses processes that would compute something else than the first.

    Args:
        made_of: all that a run follows from by what it is called, as JSON knows it.

    Raises:
        ProcessesError: naming each process that differs, and in what.
    """
    if _here.count == 1:
        return
    host = socket.gethostname()
    rows = [json.loads(row) for row in gathered(json.dumps([host, dict(made_of)]))]
    (host, theirs), faults = rows[0], []
    for number, (other, ours) in enumerate(rows):
        keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
        faults += [
            f"process {number} ({other}): {key} = {ours.get(key)}; process 0 ({host}) has "
            f"{theirs.get(key)}"
            for key in keys
        ]
    if faults:
        raise ProcessesError(
            "not all processes of this run have the same recipe, data and packages; give each the "
            "same\n  " + "\n  ".join(faults)
        )


def by_the_first(action: Callable[[], object]) -> None:
    """Has the first process do something, the others wait for it, and all go on or none.

    Raises:
        RunFolderError: on the others, what it raised on the first; there it is raised as it is.
    """
    if _here.count == 1:
        action()
        return
    problem: Exception | None = None
    if first():
        try:
            action()
        except Exception as error:
            problem = error
    (said, *_) = gathered("" if problem is None else f"{problem}" or type(problem).__name__)
    if problem is not None:
        raise problem
    if said:
        raise RunFolderError(f"process 0: {said}")


def stop_together(asked: bool) -> bool:
    """Whether any process was asked to end, the same answer on all; each then knows the signal.

    Args:
        asked: whether this one was.
    """
    if _here.count == 1:
        return asked
    rows = [json.loads(row) for row in gathered(json.dumps([asked, stops.number()]))]
    if not any(each for each, _ in rows):
        return False
    if heard := [number for each, number in rows if each and number]:
        stops.hear(max(heard))
    global _agreed
    _agreed = True
    return True


@contextmanager
def uncut() -> Iterator[stops.Hold | None]:
    """Within it, of several processes none ends by itself: `end_together` is where all look."""
    if here().count == 1:
        yield None
        return
    with stops.held(raises=False) as hold:
        yield hold


def end_together(hold: stops.Hold | None) -> None:
    """Ends all processes where one of them was asked to; all come here at the same step.

    Args:
        hold: of `uncut`; None of one process, which ends where it is.

    Raises:
        Stopped: one was.
    """
    if hold is not None and stop_together(hold.asked):
        raise stops.Stopped


def either(lines: Sequence[str]) -> tuple[str, ...]:
    """What any process says, each line once, the same on all."""
    if _here.count == 1:
        return tuple(lines)
    said = [json.loads(row) for row in gathered(json.dumps(list(lines)))]
    return tuple(dict.fromkeys(line for row in said for line in row))


def summed(counts: Sequence[int]) -> list[int]:
    """The sum over all processes of whole numbers."""
    if _here.count == 1:
        return list(counts)
    rows = [json.loads(row) for row in gathered(json.dumps([int(count) for count in counts]))]
    return [sum(column) for column in zip(*rows, strict=True)]


def _number(environment: Mapping[str, str], name: str, least: int) -> int | None:
    said = environment.get(name)
    if said is None:
        return None
    if not said.isdecimal() or int(said) < least:
        raise ProcessesError(f"{name} = {said}: must be a whole number of {least} or above")
    return int(said)


def _launched(environment: Mapping[str, str], name: str) -> int:
    """Processes that a launcher says it has started; 0 where that isn't known."""
    said = environment.get(name, "")
    # What only asks for resources, as sbatch does, says how many tasks there would be.
    if name == "SLURM_NTASKS" and "SLURM_STEP_NODELIST" not in environment:
        return 0
    return int(said) if said.isdecimal() else 0


def _joined(where: Meeting) -> Together:
    """Brings the processes together."""
    import jax

    # Of a signal all are told at a place of ours; a worker's end is told by the watch.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_enable_recoverability", True)
    # JAX's own end of the waiting is an `abort`.
    patience = threading.Timer(where.seconds, _nobody_came, (where,))
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            where.address,
            where.count,
            where.index,
            initialization_timeout=where.seconds + HEARTBEAT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            cluster_detection_method=None if where.address is None else "deactivate",
        )
    except (RuntimeError, ValueError) as error:
        raise ProcessesError(f"JAX can't bring the processes together: {error}; {CURE}") from error
    finally:
        patience.cancel()
    return Together(jax.process_index(), jax.process_count())


def _nobody_came(where: Meeting) -> None:
    """Ends this process, which waits for others within JAX."""
    from jax._src import distributed  # which knows what a launcher said

    state = distributed.global_state
    address = where.address or state.coordinator_address
    index, count = state.process_id, where.count or state.num_processes
    problem = (
        f"not all of them came to {address} within {where.seconds} s"
        if index == 0
        else f"the coordinator at {address} didn't answer within {where.seconds} s"
    )
    stops.end_now(f"error: process {index} of {count}: {problem}; {CURE}", MISSED)


def _is_of_others(error: Exception) -> bool:
    """Whether an error may come of another process' end: it is of XLA, whatever its type."""
    return COLLECTIVE.match(str(error)) is not None


__all__ = [
    "Meeting",
    "ProcessesError",
    "Together",
    "by_the_first",
    "either",
    "end_together",
    "first",
    "gathered",
    "here",
    "joined",
    "meeting",
    "refuse_different",
    "refuse_several",
    "stop_together",
    "summed",
    "uncut",
    "wait",
]
