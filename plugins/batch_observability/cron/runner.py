"""
`batchobs run`: the parent of a command, which is to it what its caller was, and which tells how it ran.

What the caller sees is what the command does: its output, its exit status, the signal that it died of.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from batch_observability import config
from batch_observability.config import ConfigError, Settings
from batch_observability.cron import surroundings
from batch_observability.cron.capture import Capture, Follower
from batch_observability.cron.forwarding import Ended, Watch, block, leave_as, unblock
from batch_observability.cron.job import ALLOW, WAIT, Job
from batch_observability.cron.launch import Launch, NotStartedError, launch, leads_what
from batch_observability.cron.lock import JobLock
from batch_observability.cron.pumps import Pump, leave_behind
from batch_observability.cron.streams import STDERR, STDIN, Streams, arrange, hold_places, let_go, let_go_of_inherited
from batch_observability.cron.telling import Due, Telling, Trace, context_of, due_of, settings_of
from batch_observability.cron.verdict import Verdict, judge
from batch_observability.objective import format_duration
from batch_observability.schema import Outcome

# As timeout(1).
_TIMED_OUT = 124
_LOOKS_EACH_S = 0.1
# A burst becomes log lines after we have left; but what is shipped is shipped before the end.
_LINES_WITHIN_S, _SHIPPED_WITHIN_S = 0.02, 2.0
# What is computed while others wait must not take the processor from what passes the output on.
_SWITCH_S = 0.0005


def run(job: Job) -> int:
    """
    Run a job, and return only what this process is to end as: a wait status.

    Raises:
        ConfigError: if it is asked for what cannot be; then nothing has run.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Until the command runs, we die of it without a word.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What we have to say of ourselves is not for who reads the job's stderr.
    logging.getLogger(config.SECTION).addHandler(logging.NullHandler())
    hold_places()
    given = surroundings.given()
    if job.env_file:
        from batch_observability.cron.env_file import read_env_file

        variables = read_env_file(job.env_file)
        given.update(variables)
        os.environ.update(variables)
    if job.instrument:
        from batch_observability.cron.instrument import instrumented

        given = instrumented(given, job.words)
    sys.setswitchinterval(_SWITCH_S)
    settings = settings_of()
    due = due_of(job, settings.state_path)
    lock = _lock(job, settings, due)
    if lock is None:
        return 0
    trace = Trace()
    captures: list[Capture] = []
    for number in range(1, job.retries + 2):
        attempt = _Attempt(
            job, Telling(context_of(job, trace, number, due), settings), given, captures, last=number > job.retries
        )
        status, again = attempt.run()
        if not again:
            break
    lock.release()
    for capture in captures:
        capture.finish_apart()
    leave_behind([pump for pump in attempt.pumps if pump.open])
    return status


def _lock(job: Job, settings: Settings, due: Due) -> JobLock | None:
    """Take the lock of a job that is not to run twice at a time; None if it is to be skipped."""
    lock = JobLock(settings.state_path, job.name)
    if job.overlap == ALLOW:
        return lock
    try:
        if lock.take(wait=job.overlap == WAIT):
            return lock
    except OSError as error:
        raise ConfigError(f"--overlap {job.overlap}: no lock in {settings.state_path}: {error.strerror}") from None
    telling = Telling(context_of(job, Trace(), 1, due), settings)
    telling.begin()
    holder = f" (process {held})" if (held := lock.holder()) else ""
    telling.end(Verdict(Outcome.SKIPPED), event=f"skipped: the run before still goes on{holder}")
    return None


class _Attempt:
    """One start of the command."""

    def __init__(
        self, job: Job, telling: Telling, given: dict[str, str], captures: list[Capture], *, last: bool
    ) -> None:
        self._job = job
        self._telling = telling
        self._given = given
        self._last = last
        self.pumps: list[Pump] = []
        self.captures = captures

    def run(self) -> tuple[int, bool]:
        """Run the command; return the wait status to end with, and whether it is to be tried again."""
        telling, job = self._telling, self._job
        telling.listen()
        streams = arrange()
        capture = telling.capture()
        leads = leads_what()
        before = block()
        environment = surroundings.of_job(self._given, telling.context, telling.channel_path)
        try:
            pid = launch(Launch(job.words, environment, streams, before, leads))
        except NotStartedError as error:
            unblock(before)
            return self._not_started(error), False
        if self._last:
            let_go(STDIN)
            let_go_of_inherited()
        self.pumps = [Pump(pipe, capture.listener(pipe.outlet), last=self._last) for pipe in streams.pipes]
        followers = _follow(streams, capture)
        for pump in self.pumps:
            pump.start()
        telling.begin()
        ended, timed_out = self._wait(Watch(pid, shares_terminal=not leads), pid, leads=leads)
        for follower in followers:
            follower.finish()
        capture.finish(_SHIPPED_WITHIN_S if telling.ships else _LINES_WITHIN_S)
        self.captures.append(capture)
        verdict = judge(ended.status, ended.asked, timed_out=timed_out, retries=not self._last, tail=capture.tail())
        telling.end(verdict, tail=capture.tail())
        again = verdict.outcome == Outcome.RETRYING
        if again:
            unblock(before)
        return (_TIMED_OUT << 8 if timed_out else ended.status), again

    def _not_started(self, error: NotStartedError) -> int:
        # Whatever stderr is by now.
        os.write(STDERR, f"batchobs: {error}\n".encode(errors="surrogateescape"))
        self._telling.begin()
        self._telling.end(Verdict(Outcome.FAILED, "NotStarted", str(error)))
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

        timeout = self._job.timeout
        if timeout is None:
            ended = watch.wait(also=passed_on)
            assert ended is not None
            return ended, ""
        ended = watch.wait(time.monotonic() + timeout.total_seconds(), passed_on)
        if ended is not None:
            return ended, ""
        if watch.ended:
            # Only what it wrote is not taken yet.
            ended = watch.wait(also=passed_on)
            assert ended is not None
            return ended, ""
        from batch_observability.cron.culling import Culled

        culled = Culled(pid, self._telling.context.run_id, leads=bool(leads))
        culled.ask()
        give_up = time.monotonic() + self._job.grace.total_seconds()
        while (left := give_up - time.monotonic()) > 0 and culled.alive():
            watch.wait(time.monotonic() + min(left, _LOOKS_EACH_S), lambda: False)
        culled.kill()
        ended = watch.wait(also=passed_on)
        assert ended is not None
        return ended, format_duration(timeout)


def _follow(streams: Streams, capture: Capture) -> list[Follower]:
    followers = [Follower(followed, capture) for followed in streams.followed]
    for follower in followers:
        follower.start()
    return followers


def leave(job: Job) -> int:
    """Run a job, and end this process as the job ended; return only if it is to exit with 0."""
    status = run(job)
    leave_as(status)
