"""
A job that was asked for, made ready to be started: checked, and written down so that the next start need not read it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from batch_observability import config, schema
from batch_observability.catalog.places import watched
from batch_observability.config import ConfigError, Settings
from batch_observability.context import RunContext
from batch_observability.cron import surroundings
from batch_observability.cron.attempt import SOURCE, airflow_cfg, due_of, in_airflow_cfg, settings_of
from batch_observability.cron.env_file import read_env_file
from batch_observability.cron.job import ALLOW, Job
from batch_observability.cron.ready import FOLDER, Ready, is_setting, keep
from batch_observability.cron.schedule import ScheduleError
from batch_observability.objective import format_duration

_MEGABYTE = 1_000_000
_MAX_KEPT, _MAX_AGE_S = 500, 30 * 86_400
# What OpenTelemetry calls them.
_SERVICE, _VERSION, _ENVIRONMENT = "service.name", "service.version", "deployment.environment.name"
# Of an attempt, not of a job.
_OWN = (
    "run_id", "trace_id", "span_id", "parent_id", "orphan_parent_id", "linked_spans", "attributes", "start_ns",
    "retries_left", "due_ns", "slot", "declared_ns",
)  # fmt: skip


def prepared(asked: Job) -> tuple[Ready, dict[str, str]]:
    """
    Return a job that is ready to be started, and the variables of its environment file.

    Raises:
        ConfigError: if it is asked for what cannot be.
    """
    variables = read_env_file(asked.env_file) if asked.env_file else {}
    # Settings may stand among them.
    os.environ.update(variables)
    settings = settings_of()
    state = settings.state_path
    try:
        due_of(state, asked.model.as_text(), asked.schedule, asked.timezone, start_ns=time.time_ns())
    except ScheduleError as error:
        raise ConfigError(f"--schedule: {error}") from None
    job = Ready(_fields(asked, settings))
    arguments = sys.argv[2:]
    options = len(arguments) - len(asked.words)
    is_ours = sys.argv[1:2] == ["run"] and arguments[options:] == list(asked.words)
    # Where airflow.cfg has a say, the state folder may be where nobody finds it without reading that.
    if is_ours and not in_airflow_cfg() and not any(map(is_setting, variables)):
        with suppress(OSError):
            keep(job, arguments, options, _files(settings))
            _tidy(state / FOLDER)
    return job, variables


def _fields(asked: Job, settings: Settings) -> dict[str, str]:
    """Return all that is known of a job before it starts, as text."""
    model, state = asked.model.as_text(), settings.state_path
    context = RunContext(
        run_id="",
        source=SOURCE,
        resource=asked.name,
        model=model,
        tags={schema.TAG_JOB: asked.name},
        trace_id=0,
        span_id=0,
        env=config.environment(),
    )
    known = {name: value for name, value in asdict(context).items() if name not in _OWN}
    observer = {
        "state": str(state),
        "schedule": asked.schedule,
        "timezone": asked.timezone,
        "path": sys.path,
        "capture_bytes": settings.capture_max_mb * _MEGABYTE,
    }
    there = os.environ.get(surroundings.RESOURCE, "")
    return {
        "name": asked.name,
        "state": str(state),
        "timeout": "" if asked.timeout is None else str(asked.timeout.total_seconds()),
        "timeout_text": "" if asked.timeout is None else format_duration(asked.timeout),
        "grace": str(asked.grace.total_seconds()),
        "overlap": "" if asked.overlap == ALLOW else asked.overlap,
        "lock": str(state / "locks" / f"{quote(asked.name, safe='')}.lock"),
        "retries": str(asked.retries),
        "env_file": asked.env_file,
        "instrument": "1" if asked.instrument else "",
        "capture_bytes": str(settings.capture_max_mb * _MEGABYTE),
        "max_stages": str(settings.max_stages),
        "wait_at_end": settings.wait_at_end,
        "wait_timeout": str(settings.wait_timeout),
        "context": json.dumps(known)[1:-1],
        "observer": json.dumps(observer)[1:-1],
        "try_number": json.dumps(schema.TRY_NUMBER),
        "attributes": _merged(there, context),
        "run_attribute": "" if schema.RUN_ID in _names(there) else schema.RUN_ID,
    }


def _merged(there: str, context: RunContext) -> str:
    """Return resource attributes with those of all runs of a job; those that are there already stay."""
    ours = {
        _SERVICE: context.model["service"],
        _VERSION: context.model["version"],
        _ENVIRONMENT: context.env,
        schema.MODEL_NAME: context.model["name"],
    }
    names = _names(there)
    pairs = [f"{name}={quote(value, safe='')}" for name, value in ours.items() if value and name not in names]
    return ",".join([*([there.rstrip(", ")] if there.strip(", ") else []), *pairs])


def _names(attributes: str) -> set[str]:
    return {part.partition("=")[0].strip() for part in attributes.split(",")}


def _files(settings: Settings) -> Iterator[str]:
    """Yield what settings and models are read from, and would be if it were there."""
    yield airflow_cfg()
    yield from map(str, watched(settings))


def _tidy(folder: Path) -> None:
    """Remove what nobody has asked for lately: a command with a date in it is another one each day."""
    now, files = time.time(), sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    for number, file in enumerate(files):
        if number >= _MAX_KEPT or now - file.stat().st_mtime > _MAX_AGE_S:
            file.unlink(missing_ok=True)
