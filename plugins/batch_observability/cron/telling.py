"""
One attempt of a job, told to its observer: begun when the command runs, ended when it is known how it ended.

Nothing here may keep a job from running: what fails is passed over, and the job runs on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_observability import config, schema
from batch_observability.context import RunContext
from batch_observability.cron.capture import Capture, Piece
from batch_observability.cron.job import Job
from batch_observability.cron.verdict import Verdict
from batch_observability.guard import guarded
from batch_observability.ids import TraceParent, parse_traceparent

if TYPE_CHECKING:
    from batch_observability.cron.gateway import Gateway
    from batch_observability.sidecar.spawn import Observer

SOURCE = "cron"
_DRAIN_S = 0.5
_MEGABYTE = 1_000_000
# A busy host starts what is due a little late.
_STARTS_WITHIN_S = 600


def settings_of(environ: os._Environ[str] = os.environ) -> config.Settings:
    """Return the settings of this host; a mistake in one is not the job's: it has its default then."""
    section = None
    if any(name.startswith(f"AIRFLOW__{config.SECTION.upper()}__") for name in environ) or _in_airflow_cfg():
        section = _airflow_option
    settings = config.load(section=section, on_error=lambda _error: None)
    try:
        # Looked up once: a user without a home, as in some containers, has none.
        folder = settings.state_path
    except RuntimeError:
        folder = Path(f"/tmp/batchobs-{os.geteuid()}/state")  # noqa: S108  (private folders are made in it)
    return replace(settings, state_dir=str(folder))


def _in_airflow_cfg() -> bool:
    """Whether airflow.cfg has a section of ours: reading it for each setting takes long."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    path = os.environ.get("AIRFLOW_CONFIG") or f"{home}/airflow.cfg"
    try:
        return f"[{config.SECTION}]".encode() in Path(os.path.expandvars(path)).expanduser().read_bytes()
    except (OSError, RuntimeError):
        return False


def _airflow_option(key: str) -> str | None:
    try:
        return config.airflow_option(config.SECTION, key)
    except config.ConfigError:
        return None


class Trace:
    """The trace that all attempts of a job are in: the one that this process was started in, or a new one."""

    def __init__(self) -> None:
        inbound = parse_traceparent(os.environ.get("TRACEPARENT"))
        self.parent: TraceParent | None = inbound
        self.trace_id = inbound.trace_id if inbound else int.from_bytes(os.urandom(16)) or 1
        self.before: int | None = None


class Due(NamedTuple):
    """When the job was due, and its model with what it promises then."""

    model: dict[str, Any]
    due_ns: int | None = None
    slot: str = ""
    since_ns: int | None = None


def due_of(job: Job, state: Path) -> Due:
    """
    Return when a job that begins now was due; that it is due is written down, for who looks for missed ones.

    Raises:
        ConfigError: if the schedule or its time zone cannot be read.
    """
    model = job.model.as_text()
    if not job.schedule:
        return Due(model)
    from datetime import UTC, datetime

    from batch_observability.cron.known import BY_RUN, note
    from batch_observability.cron.schedule import ScheduleError, parse, zone_of
    from batch_observability.sla.promises import slot_of, unix_ns

    try:
        schedule = parse(job.schedule, zone_of(job.timezone) if job.timezone else None)
    except ScheduleError as error:
        raise config.ConfigError(f"--schedule: {error}") from None
    now = datetime.now(UTC)
    try:
        known = note(state, job.name, model, job.schedule, job.timezone, by=BY_RUN)
    except OSError:
        known = None
    since_ns = known.since_ns if known else None
    model = known.model if known else model
    latest = schedule.latest(now)
    if latest is None or (now - latest).total_seconds() > _STARTS_WITHIN_S:
        # Somebody has started it by hand.
        return Due(model, since_ns=since_ns)
    due_ns = unix_ns(latest)
    return Due(model, due_ns, slot_of("scheduled", due_ns, ""), since_ns)


def context_of(job: Job, trace: Trace, number: int, due: Due) -> RunContext:
    """Return the context of an attempt that begins now."""
    parent = trace.parent.span_id if trace.parent else None
    began_ns = time.time_ns()
    context = RunContext(
        run_id=_uuid(),
        source=SOURCE,
        resource=job.name,
        model=due.model,
        tags={schema.TAG_JOB: job.name},
        trace_id=trace.trace_id,
        span_id=int.from_bytes(os.urandom(8)) or 1,
        parent_id=parent,
        orphan_parent_id=parent,
        linked_spans=((trace.trace_id, trace.before),) if trace.before else (),
        attributes={schema.TRY_NUMBER: number},
        start_ns=began_ns,
        due_ns=due.due_ns,
        slot=due.slot,
        declared_ns=due.since_ns,
        retries_left=number <= job.retries,
        env=config.environment(),
    )
    trace.before = context.span_id
    return context


def _uuid() -> str:
    """Return a random UUID (RFC 9562, version 4), as `uuid.uuid4` does, whose import takes long."""
    number = bytearray(os.urandom(16))
    number[6], number[8] = number[6] & 0x0F | 0x40, number[8] & 0x3F | 0x80
    text = number.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _error(verdict: Verdict, tail: str) -> dict[str, str]:
    from batch_observability.redact import redact_text

    return {"type": verdict.kind, "message": redact_text(verdict.message), "stack": redact_text(tail)}


def ends_with_us(settings: config.Settings) -> bool:
    """Whether the container, and the observer in it, ends with this process, or is to be taken to do so."""
    in_container = os.getpid() == 1 or "KUBERNETES_SERVICE_HOST" in os.environ
    return settings.wait_at_end == "always" or (settings.wait_at_end == "auto" and in_container)


class Telling:
    """
    Tells of one attempt.

    Args:
        context: the attempt.
        settings: of this host.
    """

    def __init__(self, context: RunContext, settings: config.Settings) -> None:
        self.context = context
        self._settings = settings
        self._observer: Observer | None = None
        self._gateway: Gateway | None = None
        self.channel_path: Path | None = None

    @guarded(None)
    def listen(self) -> None:
        """Be there for the job's processes, before there are any."""
        from batch_observability.cron.gateway import Gateway, socket_path

        try:
            self._gateway = Gateway(socket_path(self._settings.state_path, self.context.run_id))
        except OSError:
            return
        self.channel_path = self._gateway.path

    @guarded(None)
    def begin(self) -> None:
        """Begin to be observed."""
        from batch_observability.cron.gateway import sweep
        from batch_observability.sidecar.spawn import start_observer

        observer = start_observer(self.context, self._settings.as_frame())
        self._observer = observer
        if self._gateway is not None:
            self._gateway.serve(observer.channel)
            sweep(self._gateway.path.parent)

    @property
    def ships(self) -> bool:
        """Whether its output is told to the observer, line by line."""
        return self._observer is not None and self._settings.ship_logs

    def capture(self) -> Capture:
        """Return what takes the output of the command."""

        def make() -> tuple[Callable[[Piece], object], Callable[[int], object]]:
            from batch_observability.cron.job_log import JobLog

            channel = self._observer.channel if self._observer and self.ships else None
            log = JobLog(self.context, self._settings, channel)
            return log.take, log.end

        return Capture(self._settings.capture_max_mb * _MEGABYTE, make)

    @guarded(None)
    def end(self, verdict: Verdict, *, tail: str = "", event: str = "") -> None:
        """End, as it was judged; `tail` is what the command wrote last."""
        from batch_observability.usage import process_usage

        if self._gateway is not None:
            self._gateway.close()
        observer = self._observer
        if observer is None:
            return
        if event:
            observer.channel.send({"t": "event", "ts": time.time_ns(), "text": event, "stage": 0})
        wait = not observer.separate or ends_with_us(self._settings)
        observer.channel.send(
            {
                "t": "end",
                "ts": time.time_ns(),
                "outcome": verdict.outcome.value,
                "error": _error(verdict, tail) if verdict.kind else None,
                "wait": wait,
                "usage": process_usage(),
                "dropped": observer.channel.dropped,
            }
        )
        observer.channel.drain(_DRAIN_S)
        if wait:
            observer.channel.wait_acknowledged(self._settings.wait_timeout)
