"""
The journal of a run that is open: what is known of it, on this host, in `<state>/runs/<run_id>.json`.

Its sidecar holds a lock on it while it lives. An unlocked journal is that of a run that paused, or of one whose
sidecar is gone; whoever goes on with the run, or closes it, takes the journal over with all that was known.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batch_observability.context import RunContext
from batch_observability.private import private_folder, write_private
from batch_observability.usage import birth, host_name

log = logging.getLogger("batch_observability.sidecar")

_FOLDER = "runs"
_SUFFIX, _PARTIAL, _ANNOUNCED = ".json", ".part", ".next"
# Of the command of a cron job: how it ended, and what it wrote.
ENDED, OUTPUT = ".end", ".out"
_POLL_S = 0.02
# A process of ours boots within this, also on a busy host.
_ARRIVES_WITHIN_S = 10.0


@dataclass(frozen=True)
class Entry:
    """
    What a journal says.

    Attributes:
        observation: as `Observation.to_json` gives it.
        pid, birth: of the observed process, on `host`.
        start_told: the count of started runs has it.
        paused: the run has no process for now.
        tellers: pid and birth of other processes that would tell how it ends.
    """

    observation: dict[str, Any]
    pid: int
    birth: str
    host: str
    start_told: bool
    paused: bool
    tellers: list[list[Any]] = field(default_factory=list)

    @property
    def process_gone(self) -> bool:
        """Whether the run had a process on this host, and there is none any more that would tell how it ends."""
        if self.paused or self.host != host_name():
            return False
        return _is_gone(self.pid, self.birth) and all(_is_gone(*teller) for teller in self.tellers)


def _is_gone(pid: int, born: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return bool(born) and birth(pid) != born


def begin(state: Path, context: RunContext, began_ns: int, max_stages: int) -> bool:
    """
    Write the journal of a run of this process that begins: nobody holds it until its sidecar does. If there is one,
    announce to whoever holds it that another sidecar comes.

    Returns:
        Whether that was announced.

    Raises:
        OSError: if it cannot be written.
    """
    path = state / _FOLDER / f"{context.run_id}.json"
    if path.exists():
        path.with_suffix(_ANNOUNCED).touch(0o600)
        return True
    # Of a run that goes on, another process has written what was known, be it on another host.
    if context.resumed:
        return False
    observation = {"context": asdict(context), "max_stages": max_stages, "phase_began_ns": began_ns}
    entry = Entry(observation, os.getpid(), birth(os.getpid()), host_name(), start_told=False, paused=False)
    private_folder(path.parent)
    write_private(path, json.dumps(vars(entry)))
    return False


class Journal:
    """
    The journal of one run, which this process keeps.

    Args:
        state: the state folder.
        run_id: of the run.
    """

    def __init__(self, state: Path, run_id: str) -> None:
        self.path = state / _FOLDER / f"{run_id}.json"
        self._descriptor = -1
        self._kept: Entry | None = None
        self._complained = False

    def take(self, patience_s: float = 0.0) -> Entry | None:
        """
        Take over what another process left; None if there is nothing, or somebody has it for longer than that.

        Raises:
            ValueError, KeyError, TypeError: if what it left cannot be used.
            OSError: if it cannot be read.
        """
        give_up = time.monotonic() + patience_s
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            if self._lock(descriptor):
                break
            os.close(descriptor)
            if time.monotonic() >= give_up:
                return None
            time.sleep(_POLL_S)
        self._hold(descriptor)
        with os.fdopen(os.dup(descriptor), encoding="utf-8") as file:
            file.seek(0)
            return Entry(**json.load(file))

    @property
    def awaited(self) -> bool:
        """Whether another sidecar has been announced that has not come yet."""
        return self.path.with_suffix(_ANNOUNCED).exists()

    def arrive(self) -> None:
        """Be the sidecar that was announced."""
        with suppress(OSError):
            self.path.with_suffix(_ANNOUNCED).unlink()

    def hand_over(self) -> bool:
        """Let another sidecar have it; whether there is one. If there is none, it is this process's again."""
        self.release()
        give_up = time.monotonic() + _ARRIVES_WITHIN_S
        while self.awaited and time.monotonic() < give_up:
            time.sleep(_POLL_S)
        # The scheduler's helper may just be looking at it.
        return self.take(patience_s=1.0) is None

    def _lock(self, descriptor: int) -> bool:
        """Lock it; whether nobody else has it, and it is still the journal."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except (BlockingIOError, FileNotFoundError):
            return False

    def keep(self, entry: Entry) -> None:
        """Keep what is known now; it survives this process, and with a pause a power loss too."""
        if entry == self._kept:
            return
        try:
            self._write(entry)
            self._kept = entry
        except OSError as error:
            # Once: the run may go on for hours.
            log.log(
                logging.DEBUG if self._complained else logging.WARNING, "%s cannot be written: %s", self.path, error
            )
            self._complained = True

    def _write(self, entry: Entry) -> None:
        private_folder(self.path.parent)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
                json.dump(vars(entry), file)
            if entry.paused:
                os.fsync(descriptor)
            partial.rename(self.path)
        except OSError:
            os.close(descriptor)
            partial.unlink(missing_ok=True)
            raise
        self._hold(descriptor)

    @property
    def kept(self) -> bool:
        """Whether this process has written it."""
        return self._kept is not None

    def remove(self) -> None:
        """The run is closed."""
        if self._descriptor >= 0:
            # The journal is the last: if this process is killed here, whoever finds it goes on.
            for path in (self.path.with_suffix(ENDED), self.path.with_suffix(OUTPUT), self.path):
                with suppress(OSError):
                    path.unlink()
        self.release()

    def release(self) -> None:
        """Let others have it."""
        self._hold(-1)

    def _hold(self, descriptor: int) -> None:
        held, self._descriptor = self._descriptor, descriptor
        if held >= 0:
            os.close(held)


def run_ids(state: Path) -> Iterator[str]:
    """Yield the runs that have a journal on this host."""
    with suppress(OSError), os.scandir(state / _FOLDER) as files:
        for file in files:
            if file.name.endswith(".json"):
                yield file.name.removesuffix(".json")


def tidy(state: Path, max_age_s: float) -> None:
    """Remove what nobody will come for: journals of runs that went on elsewhere, and what was half written."""
    with suppress(OSError), os.scandir(state / _FOLDER) as files:
        for file in files:
            with suppress(OSError, ValueError, KeyError, TypeError):
                if time.time() - file.stat().st_mtime <= max_age_s:
                    continue
                if file.name.endswith((_PARTIAL, _ANNOUNCED, ENDED, OUTPUT)):
                    Path(file.path).unlink()
                    continue
                journal = Journal(state, file.name.removesuffix(_SUFFIX))
                # Of what is deferred for so long, the ledger has the state too.
                if journal.take() is not None:
                    journal.remove()
