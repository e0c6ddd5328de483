"""
Jobs whose processes are killed at random moments: the command, `batchobs run`, its observer, or several at once.

What is killed and when comes from a seed, so that a round that went wrong can be played again.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cron.jobs import start, state
from tests.live import wait_until

COMMAND, RUN, OBSERVER = "the command", "batchobs run", "the observer"
VICTIMS = (
    (COMMAND,),
    (RUN,),
    (OBSERVER,),
    (COMMAND, RUN),
    (RUN, OBSERVER),
    (COMMAND, OBSERVER),
    (COMMAND, RUN, OBSERVER),
)
# It says that it runs, writes, and says how it means to end.
SCRIPT = 'echo $$ >"$0.began"; echo started; sleep "$1"; echo "$2" >"$0.done"; exit "$2"'
_KILLED = -9
_OURS_END_WITHIN_S = 90


@dataclass
class Round:
    """
    One job and who is killed in it.

    Attributes:
        name: of the job.
        victims: who is killed, in this order, with no pause.
        delay_s: seconds from its start to that.
        lasts_s: seconds that the command takes.
        code: that it exits with.
    """

    name: str
    victims: tuple[str, ...]
    delay_s: float
    lasts_s: float
    code: int
    status: int = 0
    killed: tuple[str, ...] = ()

    @classmethod
    def drawn(cls, seed: int, number: int) -> Round:
        """Return the round of that number."""
        draw = random.Random(f"{seed}.{number}")
        victims = VICTIMS[number % len(VICTIMS)]
        # Half of them while all boot, half while the command runs or the end is told.
        delay_s = draw.choice((draw.uniform(0, 0.15), draw.uniform(0.1, 1.8)))
        return cls(f"round-{number}", victims, delay_s, draw.choice((0.0, 0.3, 0.8)), draw.choice((0, 3)))

    def play(self, folder: Path) -> None:
        """Start the job and kill; return when `batchobs run` is gone."""
        script = ("sh", "-c", SCRIPT, str(folder / self.name), str(self.lasts_s), str(self.code))
        with start("--model", self.name, "--", *script) as process:
            # A process is found only while it is there.
            found = {RUN: psutil.Process(process.pid)}
            give_up = time.monotonic() + self.delay_s
            while time.monotonic() < give_up:
                self._look(found)
                time.sleep(0.002)
            self._look(found)
            killed = []
            for victim in self.victims:
                with suppress(psutil.NoSuchProcess, KeyError):
                    found[victim].kill()
                    killed.append(victim)
            self.killed = tuple(killed)
            process.communicate(timeout=60)
            self.status = process.returncode

    def _look(self, found: dict[str, psutil.Process]) -> None:
        with suppress(psutil.Error):
            for child in found[RUN].children():
                words = child.cmdline()
                if "sidecar/__main__.py" in " ".join(words):
                    found[OBSERVER] = child
                elif words[:1] == ["sh"]:
                    found[COMMAND] = child

    def may_be_untold(self, folder: Path) -> bool:
        """Whether it may have been over before there was anything to tell."""
        return RUN in self.killed and not (folder / f"{self.name}.began").exists()

    def outcomes(self, folder: Path) -> set[str]:
        """Return the outcomes that are true of it."""
        finished = "success" if self.code == 0 else "failed"
        if self.status != _KILLED:
            return {"success" if self.status == 0 else "failed"}
        if RUN not in self.killed:
            # It died as its command did.
            return {"killed"}
        done = (folder / f"{self.name}.done").exists()
        if OBSERVER in self.killed:
            # It may have been seen to end before; if not, nobody knows.
            return {"lost", finished} if done else {"lost", "killed"}
        # Its last words may come a moment before it is killed.
        return {finished, "killed", "lost"} if done else {"killed", "lost"}


def wait_for_all(folder: Path) -> None:
    """Wait until nothing runs any more that belongs to these rounds."""

    def left() -> list[list[str]]:
        return [process.cmdline() for process in _of(folder)]

    wait_until(lambda: not left(), "all processes end", _OURS_END_WITHIN_S, left)


def _of(folder: Path) -> list[psutil.Process]:
    mark, found = str(state()), []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("BATCHOBS_STATE_DIR") == mark:
                found.append(process)
    return found
