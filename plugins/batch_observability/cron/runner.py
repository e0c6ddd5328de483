"""
`batchobs run`: the parent of a command, which is to it what its caller was, and which tells how it ran.

What the caller sees is what the command does: its output, its exit status, the signal that it died of. Nothing that
takes long to load is imported here: what is not needed before the command runs is the observer's.
"""

from __future__ import annotations

import os
import time

from batch_observability.cron import surroundings
from batch_observability.cron.bare import signal
from batch_observability.cron.capture import TAIL_BYTES, Capture
from batch_observability.cron.forwarding import Watch, block, leave_as, unblock
from batch_observability.cron.launch import Launch, NotStartedError, launch, leads_what
from batch_observability.cron.pumps import Pump, leave_behind
from batch_observability.cron.ready import is_setting, ready
from batch_observability.cron.streams import STDERR, STDIN, arrange, hold_places, inherited, let_go
from batch_observability.cron.telling import OUTPUT, Telling, Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from batch_observability.cron.forwarding import Ended
    from batch_observability.cron.job import Job
    from batch_observability.cron.lock import JobLock
    from batch_observability.cron.ready import Ready
    from batch_observability.cron.streams import Followed

# As timeout(1).
_TIMED_OUT = 124
_LOOKS_EACH_S = 0.1


def run_again(arguments: Sequence[str]) -> None:
    """Run what the arguments of `run` ask for, and end as it ended; return if it has not been asked for before."""
    known = ready(arguments)
    if known is None:
        return
    job, words = known
    variables: dict[str, str] = {}
    if job.env_file:
        from batch_observability.cron.env_file import read_env_file

        variables = read_env_file(job.env_file)
        if any(map(is_setting, variables)):
            return
    leave_as(run(job, words, variables))


def leave(asked: Job) -> NoReturn:
    """
    Run a job that was asked for, and end this process as it ended.

    Raises:
        ConfigError: if it is asked for what cannot be; then nothing has run.
    """
    from batch_observability.cron.preparing import prepared

    hold_places()
    job, variables = prepared(asked)
    leave_as(run(job, asked.words, variables))


def run(job: Ready, words: Sequence[str], variables: dict[str, str]) -> int:
    """
    Run a job, and return only what this process is to end as: a wait status.

    Args:
        job: how it is run.
        words: its command and arguments.
        variables: of its environment file.

    Raises:
        ConfigError: if it is asked for what cannot be; then nothing has run.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Until the command runs, we die of it without a word.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    hold_places()
    given = surroundings.given()
    given.update(variables)
    os.environ.update(variables)
    if job.instrument:
        from batch_observability.cron.instrument import instrumented

        given = instrumented(given, words)
    trace, waits = Trace(), _ends_with_us(job)
    lock = None
    if job.overlap:
        from batch_observability.cron.lock import lock_of

        lock = lock_of(job)
        if not lock.held:
            return _skipped(Telling(job, trace, 1, waits=waits), lock)
    for number in range(1, job.retries + 2):
        telling = Telling(job, trace, number, waits=waits)
        last, has_parent = number > job.retries, trace.parent_id is not None
        attempt = _Attempt(job, words, telling, given, last=last, has_parent=has_parent)
        status, again = attempt.run()
        if not again:
            break
    if lock is not None:
        lock.release()
    leave_behind([pump for pump in attempt.pumps if pump.open])
    return status


def _ends_with_us(job: Ready) -> bool:
    """Whether the container, and the observer in it, ends with this process, or is to be taken to do so."""
    policy, in_container = job["wait_at_end"], os.getpid() == 1 or "KUBERNETES_SERVICE_HOST" in os.environ
    return policy == "always" or (policy == "auto" and in_container)


def _skipped(telling: Telling, lock: JobLock) -> int:
    telling.begin()
    holder = f" (process {held})" if (held := lock.holder()) else ""
    telling.ended_otherwise("skipped", event=f"skipped: the run before still goes on{holder}")
    return 0


class _Attempt:
    """One start of the command."""

    def __init__(
        self,
        job: Ready,
        words: Sequence[str],
        telling: Telling,
        given: dict[str, str],
        *,
        last: bool,
        has_parent: bool,
    ) -> None:
        self._job = job
        self._words = words
        self._telling = telling
        self._given = given
        self._last = last
        self._has_parent = has_parent
        self.pumps: list[Pump] = []

    def run(self) -> tuple[int, bool]:
        """Run the command; return the wait status to end with, and whether it is to be tried again."""
        telling, job = self._telling, self._job
        before = block()
        streams = arrange()
        leads = leads_what()
        telling.begin(streams)
        environment = surroundings.of_job(
            self._given,
            place=telling.place,
            has_parent=self._has_parent,
            attributes=telling.attributes,
            context=telling.context,
            channel=telling.channel,
        )
        try:
            pid = launch(Launch(self._words, environment, streams, before, leads))
        except NotStartedError as error:
            unblock(before)
            return self._not_started(error), False
        telling.runs(pid)
        capture = Capture(telling.path(OUTPUT), job.capture_bytes)
        self.pumps = [Pump(pipe, capture.listener(pipe.outlet), last=self._last) for pipe in streams.pipes]
        for pump in self.pumps:
            pump.start()
        if self._last:
            let_go(STDIN)
            for descriptor in inherited():
                os.close(descriptor)
        ended, timed_out = self._wait(Watch(pid, shares_terminal=not leads), pid, leads=leads)
        capture.close()
        self._tell(ended, timed_out, capture, streams.followed)
        again = not self._last and self._is_failed(ended, timed_out)
        if again:
            unblock(before)
        return (_TIMED_OUT << 8 if timed_out else ended.status), again

    def _tell(self, ended: Ended, timed_out: str, capture: Capture, followed: Sequence[Followed]) -> None:
        tail = b"".join([*(one.tail(TAIL_BYTES) for one in followed), capture.tail()])[-TAIL_BYTES:]
        sizes = [one.size() for one in followed]
        self._telling.ended(
            ended, timed_out=timed_out, retries=not self._last, missed=capture.missed, sizes=sizes, tail=tail
        )
        for one in followed:
            os.close(one.descriptor)

    def _is_failed(self, ended: Ended, timed_out: str) -> bool:
        from batch_observability.cron.verdict import judge
        from batch_observability.schema import Outcome

        return judge(ended.status, ended.asked, timed_out=timed_out, retries=True).outcome is Outcome.RETRYING

    def _not_started(self, error: NotStartedError) -> int:
        # Whatever stderr is by now.
        os.write(STDERR, f"batchobs: {error}\n".encode(errors="surrogateescape"))
        self._telling.ended_otherwise("failed", kind="NotStarted", message=str(error))
        return error.status << 8

    def _wait(self, watch: Watch, pid: int, *, leads: str) -> tuple[Ended, str]:
        """Wait until the command has ended and its output is passed on; say how long it had if that was too short."""
        hushed = False

        def passed_on() -> bool:
            nonlocal hushed
            if not hushed:
                hushed = True
                for pump in self.pumps:
                    pump.hush()
            return all(pump.is_done(_LOOKS_EACH_S) for pump in self.pumps)

        timeout_s = self._job.timeout_s
        ended = watch.wait(None if timeout_s is None else time.monotonic() + timeout_s, passed_on)
        if ended is not None:
            return ended, ""
        if watch.ended:
            # Only what it wrote is not taken yet.
            return watch.wait_for_ever(passed_on), ""
        from batch_observability.cron.culling import Culled

        culled = Culled(pid, self._telling.run_id, leads=bool(leads))
        culled.ask()
        give_up = time.monotonic() + self._job.grace_s
        while (left := give_up - time.monotonic()) > 0 and culled.alive():
            watch.wait(time.monotonic() + min(left, _LOOKS_EACH_S), lambda: False)
        culled.kill()
        return watch.wait_for_ever(passed_on), self._job["timeout_text"]
