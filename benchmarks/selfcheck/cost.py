"""`selfcheck cost`: what the suite itself costs.

Both sides of a comparison run in turn within one check, so that the machine's mood does not decide.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from analysis.goals import Goal, goals_table
from analysis.render import Table
from benchmarks.lockstep import one_core
from benchmarks.room import CleanRooms
from benchmarks.tasks import Server, describe_machine

ROOT = Path(__file__).parent.parent.parent
REPEATS = 5


def cost() -> list[Table]:
    """Starts rooms, spawns, command lines and one default run (four to five minutes); returns a row for each goal."""
    _tell("starting processes")
    room, spawned = _in_turn(_seconds_of_room(), _seconds_of_spawn)
    driving = _driving_seconds()
    _tell("starting command lines")
    collect, torch_alone = _in_turn(
        _seconds_of("-m", "pytest", "--benchmark", "--collect-only", "-q"), _seconds_of("-c", "import torch, pytest_benchmark")
    )
    help_text, typer_alone = _in_turn(_seconds_of("-m", "analysis", "--help"), _seconds_of("-c", "import typer"))
    _tell("one default run, three to four minutes")
    wall, measured = _default_run()
    goals = [
        Goal("a clean room is ready sooner than a spawn with torch", f"{spawned / room:.0f} times",
             "at least 15 times", spawned / room >= 15, f"{room * 1000:.0f} ms against {spawned * 1000:.0f} ms"),
        Goal("asking a room for a block, and its answer", f"{driving * 1e6:.0f} us",
             "at most 100 us", driving <= 100e-6, "outside the timed region; the warming call comes on top"),
        Goal("share of a default run in rounds and memory passes", f"{measured / wall:.0%}",
             "at least 50%", measured / wall >= 0.5, f"{measured:.0f} s of {wall:.0f} s"),
        Goal("--benchmark --collect-only over import torch", f"{collect - torch_alone:.2f} s",
             "at most 0.50 s", collect - torch_alone <= 0.5, f"{collect:.2f} s against {torch_alone:.2f} s"),
        Goal("analysis --help over import typer", f"{help_text - typer_alone:.2f} s",
             "at most 0.30 s", help_text - typer_alone <= 0.3, f"{help_text:.2f} s against {typer_alone:.2f} s"),
    ]  # fmt: skip
    return [goals_table(goals, [f"medians of {REPEATS} in turn; one default run"])]


def _in_turn(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Medians of both, run alternately, after one uncounted run of each."""
    one(), other()
    pairs = [(one(), other()) for _ in range(REPEATS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def _seconds_of_room() -> Callable[[], float]:
    rooms = CleanRooms(timeout_seconds=60)

    def seconds() -> float:
        start = time.perf_counter()
        rooms.run(describe_machine, ("cpu",), 1)
        return time.perf_counter() - start

    return seconds


def _driving_seconds() -> float:
    """What asking a room costs beside what it does: a question there and an answer of a Block's size back."""
    seconds = []
    with one_core(1) as core, CleanRooms(timeout_seconds=60).open(_answer, core) as room:
        for _ in range(1000):
            start = time.perf_counter()
            room.ask(1)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _answer(core: int | None, *, announce: Server) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    announce.serve(lambda calls: (0.0, None, calls))


def _seconds_of_spawn() -> float:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    start = time.perf_counter()
    process = context.Process(target=_spawned, args=(sender,))
    process.start()
    receiver.recv()
    elapsed = time.perf_counter() - start
    process.join()
    return elapsed


def _spawned(sender: multiprocessing.connection.Connection) -> None:
    import torch

    sender.send(torch.is_grad_enabled())


def _seconds_of(*arguments: str) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)  # noqa: S603 - our own
        return time.perf_counter() - start

    return seconds


def _default_run() -> tuple[float, float]:
    """Wall seconds of `pytest --benchmark` as a whole process, and those inside rounds and memory passes."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = _seconds_of("-m", "pytest", "--benchmark", f"--benchmark-storage=file://{folder}")()
        (run,) = Path(folder).glob("*/*.json")
        conditions = json.loads(run.read_text())["gradtax"]["conditions"]
    return seconds, conditions["measured_seconds"]


def _tell(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)  # noqa: T201 - progress of a command
