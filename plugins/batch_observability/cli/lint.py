"""
`batchobs lint`: who answers for each model, whether it is named well and promises what it can keep, and what it costs.

Files are read, never run. A table on a terminal; elsewhere one line for each finding, or JSON, SARIF or GitHub's
annotations.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_observability import config
from batch_observability.catalog.places import paths_of
from batch_observability.cli.options import is_blank, load_settings
from batch_observability.cli.words import document

if TYPE_CHECKING:
    from batch_observability.lint.findings import Finding, Severity
    from batch_observability.lint.formats import Report
    from batch_observability.lint.gate import Read
    from batch_observability.lint.series import Assumed

_FOUND = 1
_FORMATS = ("text", "json", "sarif", "github")
_FAIL_ON = ("error", "warning", "note", "never")


def add_parser(commands: Any) -> None:
    """Add `lint`; it sets `run`, which takes the options and returns the exit code."""
    lint = commands.add_parser(
        "lint",
        help="who answers for each model, how it is named and promised, and how many custom metrics it makes",
        description="Check catalogs and DAG files, which are read and never run: owners, tiers, runbooks, objectives, "
        "names, tags, and what the ledger says of objectives. Prints findings, a score for each owner, and the "
        "projected number of Datadog custom metrics. The exit code is 1 if a finding is as bad as --fail-on says.",
    )
    lint.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="DAG files, catalogs, and folders of them (Airflow's folder of DAGs, and this host's catalog)",
    )
    lint.add_argument("--format", choices=_FORMATS, default="text", help="how findings are printed (text)")
    lint.add_argument("--fail-on", choices=_FAIL_ON, default="error", help="least severity for exit code 1 (error)")
    lint.add_argument("--no-history", action="store_true", help="do not compare objectives with the ledger")
    _add_assumptions(lint.add_argument_group("custom metrics"))
    lint.set_defaults(run=_run)


def _add_assumptions(group: Any) -> None:
    group.add_argument("--envs", type=_names, metavar="NAMES", help="environments, comma separated (DD_ENV, or prod)")
    group.add_argument("--budget", type=_whole(1), metavar="N", help="more projected custom metrics are an error")
    group.add_argument("--stages", type=_whole(0), metavar="N", help="stages of a run, where code does not say (5)")
    group.add_argument("--measurements", type=_whole(0), metavar="N", help="measurements of a run, likewise (1)")
    group.add_argument("--failing", type=_share, metavar="SHARE", help="share of tasks that fail once a day (5%%)")
    group.add_argument("--breaking", type=_share, metavar="SHARE", help="share of promises broken in a day (2%%)")
    group.add_argument("--hosts", type=_whole(1), metavar="N", help="hosts that run one task or job in a day (1)")
    group.add_argument("--percentiles", action="store_true", help="percentiles of distributions are switched on")


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 12 or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}; write for example 5")
        return int(text)

    return parse


def _share(text: str) -> float:
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; write for example 5% or 0.05")
    return number


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no environment; write for example prod,staging")
    return names


def _run(options: argparse.Namespace) -> int:
    from batch_observability.lint.findings import Severity

    report = _report(options)
    if options.format == "text":
        from batch_observability.cli.findings import print_report

        print_report(report, terminal=sys.stdout.isatty())
    else:
        print(_as_text(report, options.format))  # noqa: T201  (the command's voice)
    return _FOUND if options.fail_on != "never" and _is_bad(report, Severity(options.fail_on)) else 0


def _as_text(report: Report, how: str) -> str:
    from batch_observability.lint import formats

    if how == "json":
        return document(formats.as_json(report))
    return formats.sarif(report.findings, Path()) if how == "sarif" else formats.github(report.findings, Path())


def _is_bad(report: Report, least: Severity) -> bool:
    return any(one.severity.reaches(least) for one in report.findings)


def _report(options: argparse.Namespace) -> Report:
    from batch_observability.lint import gate
    from batch_observability.lint.formats import Report
    from batch_observability.lint.rules import mistake
    from batch_observability.lint.score import scores
    from batch_observability.lint.series import project

    read = gate.look(_paths(options.paths))
    assumed = _assumed(options)
    projection = project(read.subjects, assumed)
    more, looked, history = ([], [], "not looked at") if options.no_history else _history(read)
    if options.budget is not None:
        looked = [*looked, "custom-metrics"]
        if projection.total > options.budget:
            text = f"{projection.total:,} custom metrics are projected, and the budget is {options.budget:,}"
            more = [*more, mistake("custom-metrics", text)]
    findings, silenced = gate.finish(read, more, looked)
    return Report(
        findings=findings,
        scores=scores(read.subjects, findings),
        projection=projection,
        budget=options.budget,
        models=len({subject.model.name for subject in read.subjects}),
        files=len(read.names),
        silenced=silenced,
        history=history,
    )


def _paths(given: list[Path]) -> list[Path]:
    missing = next((path for path in given if not path.exists()), None)
    if missing is not None:
        raise config.ConfigError(f"{str(missing)!r} is not there: name DAG files, catalogs, or folders of them")
    if given:
        return given
    folder = config.airflow_option("core", "dags_folder")
    usual = [Path(folder).expanduser()] if folder else []
    found = [path for path in (*usual, *paths_of(load_settings())) if path.exists()]
    if not found:
        raise config.ConfigError("nothing to check: name DAG files, catalogs (batch_models.yaml), or their folders")
    return found


def _assumed(options: argparse.Namespace) -> Assumed:
    from batch_observability.lint.series import Assumed

    names = ("envs", "stages", "measurements", "failing", "breaking", "hosts")
    said = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    env = config.environment()
    return Assumed(**{**({"envs": (env,)} if env else {}), **said, "percentiles": options.percentiles})


def _history(read: Read) -> tuple[list[Finding], list[str], str]:
    """Return objectives that are tighter than the past allows, the rules that were looked at, and how that went."""
    from batch_observability.ledger.store import Ledger, LedgerError
    from batch_observability.lint.history import tight_objectives
    from batch_observability.lint.rules import RULES

    settings = load_settings()
    if is_blank(settings):
        return [], [], "there is no ledger here"
    ledger, now_ns = Ledger(settings.ledger, settings.ledger_timeout), time.time_ns()
    rule = RULES["tight-objective"]
    try:
        found = [
            rule.finding(complaint)
            for subject in read.subjects
            if not subject.is_described
            for complaint in tight_objectives(subject, ledger, now_ns)
        ]
    except LedgerError as error:
        return [], [], str(error)
    return found, [rule.id], "compared"
