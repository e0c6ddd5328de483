"""
`batchobs run [options] -- command ...`: run a command as if this were not here, and observe it.
"""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from batch_observability import config
from batch_observability.catalog.values import Cataloged
from batch_observability.cli.options import duration
from batch_observability.cron.job import OVERLAPS, Job
from batch_observability.model import SLA, BatchModel
from batch_observability.objective import OBJECTIVES, TERMS, ModelError


def add_parser(commands: Any) -> None:
    """Add `run`; it sets `run`, which takes the options, and ends this process as the command ended."""
    run = commands.add_parser(
        "run",
        help="run a command, as cron would, and observe it",
        description="Run a command and observe it. Its output, its exit status and the signals that it gets and dies "
        "of are what they would be without this. What no option says is as the catalog has it. 127: not found, "
        "126: not executable, 124: not done in time.",
        usage="batchobs run [options] -- command ...",
    )
    run.add_argument("--model", default="", metavar="NAME", help="the batch model that it runs (the script's name)")
    run.add_argument("--version", help="version of the model")
    run.add_argument("--service", help="service of the model (its name)")
    run.add_argument("--owner", metavar="TEAM", help="the team that answers for it")
    run.add_argument("--tier", help="how much it matters, from 1")
    run.add_argument("--runbook", metavar="URL", help="what to do when it fails")
    run.add_argument("--schedule", metavar="'M H D M W'", help="when it is due, as crontab(5) writes it")
    run.add_argument("--timezone", metavar="ZONE", help="zone of the schedule (the host's)")
    run.add_argument("--timeout", type=duration, metavar="DURATION", help="end it, and what it started, after this")
    run.add_argument("--grace", type=duration, metavar="DURATION", help="and kill it after this (30s)")
    run.add_argument("--overlap", choices=OVERLAPS, help="if the run before still goes on (allow); skip exits with 0")
    run.add_argument("--retries", type=_count, metavar="N", help="attempts after one that failed (0)")
    run.add_argument(
        "--instrument",
        action=argparse.BooleanOptionalAction,
        help="trace what it calls, by OpenTelemetry's instrumentations",
    )
    run.add_argument("--env-file", metavar="FILE", help="KEY=VALUE lines for the command's environment")
    for name in (*OBJECTIVES, *TERMS):
        run.add_argument(f"--sla-{name.replace('_', '-')}", metavar="VALUE", help=argparse.SUPPRESS)
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="command", help="the command and its arguments")
    run.set_defaults(run=_run)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write 0 or more")
    return int(text)


def _name_of(words: list[str]) -> str:
    from batch_observability.cron.naming import name_of_script

    return name_of_script(shlex.join(words))


def _run(options: argparse.Namespace) -> int:
    from batch_observability.catalog.lookup import named
    from batch_observability.catalog.merging import merged
    from batch_observability.cron.runner import leave
    from batch_observability.cron.telling import settings_of

    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise config.ConfigError("run: there is no command; write it after --, for example batchobs run -- ./score.sh")
    try:
        model = _declared(options, options.model or _name_of(words))
    except ModelError as error:
        raise config.ConfigError(str(error)) from None
    entry = named(model.name, settings_of())
    return leave(Job(words=words, model=merged(model, entry), **_how(options, entry)))


def _declared(options: argparse.Namespace, name: str) -> BatchModel:
    """Return the model as far as the options say it."""
    given = {key: getattr(options, key) for key in ("version", "service", "owner", "tier", "runbook")}
    promised = {key: getattr(options, f"sla_{key}") for key in (*OBJECTIVES, *TERMS)}
    promised = {key: text for key, text in promised.items() if text is not None}
    fields = {key: text for key, text in given.items() if text is not None}
    return BatchModel(name=name, sla=SLA(**promised) if promised else None, **fields)


def _how(options: argparse.Namespace, entry: Cataloged | None) -> dict[str, Any]:
    """Return how the job is to be run: as the options say, else as the catalog does; what neither says is left out."""
    found: dict[str, Any] = {}
    for name in ("timeout", "grace", "overlap", "retries", "env_file", "instrument", "schedule", "timezone"):
        value = getattr(options, name)
        # A schedule is meant in the zone that is given with it, or in the host's.
        if value is None and entry is not None and not (name == "timezone" and options.schedule is not None):
            value = getattr(entry, name)
        if value is not None and value != "":
            found[name] = value
    return found
