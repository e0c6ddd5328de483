"""
What a run of a cron job is known by when it begins: the settings of its host, its trace, and when it was due.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from batch_observability import config, schema
from batch_observability.context import RunContext
from batch_observability.cron.ready import homeless_folder
from batch_observability.cron.telling import Trace, uuid
from batch_observability.model import BatchModel

SOURCE = "cron"
# A busy host starts what is due a little late.
_STARTS_WITHIN_S = 600


def settings_of(environ: os._Environ[str] = os.environ) -> config.Settings:
    """Return the settings of this host; a mistake in one is not the job's: it has its default then."""
    section = None
    if in_airflow_cfg() or any(name.startswith(f"AIRFLOW__{config.SECTION.upper()}__") for name in environ):
        section = _airflow_option
    settings = config.load(section=section, on_error=lambda _error: None)
    try:
        # Looked up once: a user without a home, as in some containers, has none.
        folder = settings.state_path.absolute()
    except RuntimeError:
        folder = Path(homeless_folder())
    return replace(settings, state_dir=str(folder))


def airflow_cfg() -> str:
    """Return where airflow.cfg is, or would be."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    path = os.environ.get("AIRFLOW_CONFIG") or f"{home}/airflow.cfg"
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111  (a user may have no home)


def in_airflow_cfg() -> bool:
    """Whether airflow.cfg has a section of ours: reading it for each setting takes long."""
    try:
        return f"[{config.SECTION}]".encode() in Path(airflow_cfg()).read_bytes()
    except OSError:
        return False


def _airflow_option(key: str) -> str | None:
    try:
        return config.airflow_option(config.SECTION, key)
    except config.ConfigError:
        return None


class Due(NamedTuple):
    """When a job was due, and its model with what it promises then."""

    model: dict[str, Any]
    due_ns: int | None = None
    slot: str = ""
    since_ns: int | None = None


def due_of(state: Path, model: dict[str, Any], schedule: str, timezone: str, *, start_ns: int) -> Due:
    """
    Return when a job that began then was due; that it is due is written down, for who looks for missed ones.

    Raises:
        ScheduleError: if the schedule or its time zone cannot be read.
    """
    if not schedule:
        return Due(model)
    from datetime import UTC, datetime

    from batch_observability.cron.known import BY_RUN, note
    from batch_observability.cron.schedule import parse, zone_of
    from batch_observability.sla.promises import slot_of, unix_ns

    when = parse(schedule, zone_of(timezone) if timezone else None)
    try:
        known = note(state, model["name"], model, schedule, timezone, by=BY_RUN)
    except OSError:
        known = None
    since_ns = known.since_ns if known else None
    model = known.model if known else model
    began = datetime.fromtimestamp(start_ns / 1e9, UTC)
    latest = when.latest(began)
    if latest is None or (began - latest).total_seconds() > _STARTS_WITHIN_S:
        # Somebody has started it by hand.
        return Due(model, since_ns=since_ns)
    due_ns = unix_ns(latest)
    return Due(model, due_ns, slot_of("scheduled", due_ns, ""), since_ns)


def context_of(model: BatchModel, trace: Trace) -> RunContext:
    """Return the context of a run of a model that begins now, in a process that is not under `batchobs run`."""
    return RunContext(
        run_id=uuid(),
        source=SOURCE,
        resource=model.name,
        model=model.as_text(),
        tags={schema.TAG_JOB: model.name},
        trace_id=trace.trace_id,
        span_id=int.from_bytes(os.urandom(8), "big") or 1,
        parent_id=trace.parent_id,
        orphan_parent_id=trace.parent_id,
        attributes={schema.TRY_NUMBER: 1},
        start_ns=time.time_ns(),
        env=config.environment(),
    )


def ends_with_us(settings: config.Settings) -> bool:
    """Whether the container, and the observer in it, ends with this process, or is to be taken to do so."""
    in_container = os.getpid() == 1 or "KUBERNETES_SERVICE_HOST" in os.environ
    return settings.wait_at_end == "always" or (settings.wait_at_end == "auto" and in_container)
