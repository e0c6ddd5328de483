"""
`batchobs run [options] -- command ...`: run a command as if this were not here, and observe it.
"""

from __future__ import annotations

import argparse
import shlex
from datetime import timedelta
from typing import Any

from batch_observability import config
from batch_observability.cli.options import duration
from batch_observability.cron.job import ALLOW, OVERLAPS, Job
from batch_observability.model import SLA, BatchModel
from batch_observability.objective import OBJECTIVES, TERMS, ModelError


def add_parser(commands: Any) -> None:
    """Add `run`; it sets `run`, which takes the options, and ends this process as the command ended."""
    run = commands.add_parser(
        "run",
        help="run a command, as cron would, and observe it",
        description="Run a command and observe it. Its output, its exit status and the signals that it gets and dies "
        "of are what they would be without this. 127: not found, 126: not executable, 124: not done in time.",
        usage="batchobs run [options] -- command ...",
        epilog=f"What the model promises: {', '.join(map(_option, (*OBJECTIVES, *TERMS)))}, each with a VALUE.",
    )
    run.add_argument("--model", default="", metavar="NAME", help="the batch model that it runs (the script's name)")
    run.add_argument("--version", default="0", help="version of the model")
    run.add_argument("--service", default="", help="service of the model (its name)")
    run.add_argument("--owner", default="", metavar="TEAM", help="the team that answers for it")
    run.add_argument("--tier", default="3", help="how much it matters, from 1")
    run.add_argument("--runbook", default="", metavar="URL", help="what to do when it fails")
    run.add_argument("--schedule", default="", metavar="'M H D M W'", help="when it is due, as crontab(5) writes it")
    run.add_argument("--timezone", default="", metavar="ZONE", help="zone of the schedule (the host's)")
    run.add_argument("--timeout", type=duration, metavar="DURATION", help="end it, and what it started, after this")
    grace = timedelta(seconds=30)
    run.add_argument("--grace", type=duration, default=grace, metavar="DURATION", help="and kill it after this (30s)")
    run.add_argument(
        "--overlap", choices=OVERLAPS, default=ALLOW, help="if the run before still goes on (allow); skip exits with 0"
    )
    run.add_argument("--retries", type=_count, default=0, metavar="N", help="attempts after one that failed (0)")
    run.add_argument(
        "--instrument", action="store_true", help="trace what it calls, by OpenTelemetry's instrumentations"
    )
    run.add_argument("--env-file", default="", metavar="FILE", help="KEY=VALUE lines for the command's environment")
    for name in (*OBJECTIVES, *TERMS):
        run.add_argument(_option(name), metavar="VALUE", help=argparse.SUPPRESS)
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="command", help="the command and its arguments")
    run.set_defaults(run=_run)


def _option(name: str) -> str:
    return f"--sla-{name.replace('_', '-')}"


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write 0 or more")
    return int(text)


def _name_of(words: list[str]) -> str:
    from batch_observability.cron.naming import name_of_script

    return name_of_script(shlex.join(words))


def _run(options: argparse.Namespace) -> int:
    from batch_observability.cron.runner import leave

    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise config.ConfigError("run: there is no command; write it after --, for example batchobs run -- ./score.sh")
    given = {name: getattr(options, f"sla_{name}") for name in (*OBJECTIVES, *TERMS)}
    promised = {name: text for name, text in given.items() if text is not None}
    try:
        model = BatchModel(
            name=options.model or _name_of(words),
            version=options.version,
            service=options.service,
            owner=options.owner,
            tier=options.tier,
            runbook=options.runbook,
            sla=SLA(**promised) if promised else None,
        )
    except ModelError as error:
        raise config.ConfigError(str(error)) from None
    names = ("timeout", "grace", "overlap", "retries", "env_file", "instrument", "schedule", "timezone")
    return leave(Job(words=words, model=model, **{name: getattr(options, name) for name in names}))
