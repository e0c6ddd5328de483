"""
`batchobs datadog render`, `plan`, `apply` and `destroy`: what Datadog has because of the catalog.

`render` needs neither keys nor Datadog's client. The others take the keys from the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_observability.catalog import Catalog, load
from batch_observability.catalog.places import paths_of
from batch_observability.cli.catalogs import add_catalog
from batch_observability.cli.datadog_words import (
    notes,
    plan_lines,
    removal_lines,
    report_summary,
    step_lines,
)
from batch_observability.cli.options import load_settings
from batch_observability.config import ConfigError
from batch_observability.datadog.access import access, site_of
from batch_observability.datadog.options import Options
from batch_observability.datadog.render import FORMS, rendered, write
from batch_observability.datadog.resource import Resource

if TYPE_CHECKING:
    from batch_observability.datadog.connection import Api

_FAILED, _CHANGES, _INTERRUPTED = 1, 2, 130
_TERRAFORM = "terraform"
# Longer than all waits between two tries.
_TOLD_WAIT_S = 6.0
_KEYS = "Needs DD_API_KEY and DD_APP_KEY in the environment, and DD_SITE if it is not datadoghq.com."


def add_actions(actions: Any) -> None:
    """Add the four commands; each sets `run`, which takes the options and returns the exit code."""
    render = actions.add_parser(
        "render",
        help="write dashboards, monitors, SLOs and all else to files, for review or for Terraform",
        description="Write all that Datadog would have because of the catalog to files: a file for each resource, or "
        "for Terraform one for each kind. The same catalog gives the same files, to the letter.",
    )
    _add_catalog(render)
    render.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder; other files in it stay")
    render.add_argument("--format", choices=tuple(FORMS), default="json", help="json (default), yaml or terraform")
    render.add_argument(
        "--import",
        dest="with_ids",
        action="store_true",
        help="for Terraform: with import blocks of what is in Datadog already, which is asked for it",
    )
    _add_url(render)
    render.set_defaults(run=_render)

    plan = actions.add_parser(
        "plan",
        help="show what apply would do, field by field; nothing is changed",
        description=f"Show what apply would do. {_KEYS} Exit code 0 if that can be told, 1 if not; with "
        "--detailed-exitcode, as Terraform has it, 0 for no changes, 1 for an error, 2 for changes.",
    )
    _add_catalog(plan)
    _add_url(plan)
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    plan.add_argument("--detailed-exitcode", action="store_true", help="exit code 2 if there is something to apply")
    plan.set_defaults(run=_plan)

    apply = actions.add_parser(
        "apply",
        help="make Datadog have what the catalog says",
        description=f"Make Datadog have what the catalog says, and touch nothing else. {_KEYS} It can be interrupted "
        "and run again. Exit code 0 if all is as rendered, 1 if something was refused or is not done.",
    )
    _add_catalog(apply)
    _add_url(apply)
    apply.add_argument("--prune", action="store_true", help="remove what is managed and not in the catalog any more")
    _add_yes(apply)
    apply.set_defaults(run=_apply)

    destroy = actions.add_parser(
        "destroy",
        help="remove all that apply made",
        description=f"Remove all that is managed by batch_observability, whatever the catalog says. {_KEYS}",
    )
    destroy.add_argument("--site", default="", help="of Datadog, for example datadoghq.eu (default: DD_SITE)")
    _add_url(destroy)
    _add_yes(destroy)
    destroy.set_defaults(run=_destroy)


def _add_catalog(parser: argparse.ArgumentParser) -> None:
    add_catalog(parser, "to render")
    parser.add_argument(
        "--env",
        action="append",
        metavar="NAME",
        help="an environment that has monitors and SLOs; may be repeated (default: prod)",
    )
    parser.add_argument("--site", default="", help="of Datadog, for example datadoghq.eu (default: DD_SITE)")
    parser.add_argument(
        "--platform", default="", metavar="HANDLE", help="who is told of lost telemetry, for example @slack-platform"
    )


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="", metavar="URL", help="of a server in place of Datadog's API: a proxy")


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="remove without asking")


# --- The commands ------------------------------------------------------------------------------------------------


def _render(options: argparse.Namespace) -> int:
    resources = _resources(options)
    if options.with_ids and options.format != _TERRAFORM:
        raise ConfigError(f"--import with --format {options.format}: only Terraform imports; leave one out")
    ids = None
    if options.with_ids:

        def asked(api: Api) -> int:
            nonlocal ids
            from batch_observability.datadog.plan import existing

            ids = existing(api).ids()
            return 0

        if code := _with_api(options, asked):
            return code
    try:
        files = write(resources, options.out, options.format, ids)
    except OSError as error:
        raise ConfigError(f"--out {str(options.out)!r} cannot be written: {error.strerror}; name another") from None
    _print(f"{len(resources)} resources in {len(files)} files below {options.out}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    def shown(api: Api) -> int:
        from batch_observability.datadog.plan import as_json, existing, planned

        plan = planned(resources, existing(api))
        if options.json:
            _print(json.dumps(as_json(plan), indent=2))
        else:
            _print("\n".join(plan_lines(plan)))
        return _CHANGES if options.detailed_exitcode and not plan.is_empty else 0

    try:
        resources = _resources(options)
        return _with_api(options, shown)
    except ConfigError as error:
        if not options.detailed_exitcode:
            raise
        # 2 would say that there are changes.
        return _complain(error)


def _apply(options: argparse.Namespace) -> int:
    resources = _resources(options)

    def applied(api: Api) -> int:
        from batch_observability.datadog.apply import apply
        from batch_observability.datadog.plan import REMOVE, existing, planned

        state = existing(api)
        plan = planned(resources, state)
        gone = plan.of(REMOVE)
        if options.prune and gone and not _is_agreed(options, list(removal_lines(gone))):
            return _FAILED
        for line in notes(plan):
            _print(line)
        report = apply(api, resources, state, prune=options.prune, tell=_tell)
        if gone and not options.prune:
            _print(f"{len(gone)} managed resources are not in the catalog any more: --prune removes them")
        _print(report_summary(report))
        return _INTERRUPTED if report.is_interrupted else 0 if report.is_done else _FAILED

    return _with_api(options, applied)


def _destroy(options: argparse.Namespace) -> int:
    def destroyed(api: Api) -> int:
        from batch_observability.datadog.apply import destroy
        from batch_observability.datadog.plan import REMOVE, existing, removals

        plan = removals(existing(api))
        changes = plan.of(REMOVE)
        for line in notes(plan):
            _print(line)
        if changes and not _is_agreed(options, list(removal_lines(changes))):
            return _FAILED
        report = destroy(api, changes, tell=_tell)
        _print(report_summary(report))
        return _INTERRUPTED if report.is_interrupted else 0 if report.is_done else _FAILED

    return _with_api(options, destroyed)


# --- What they share ---------------------------------------------------------------------------------------------


def _resources(options: argparse.Namespace) -> list[Resource]:
    chosen = Options(
        envs=tuple(options.env or ("prod",)), site=site_of(os.environ, options.site), platform=options.platform
    )
    return rendered(_catalog(options), chosen)


def _catalog(options: argparse.Namespace) -> Catalog:
    """Read the catalog that is named, or this host's. It must be right: what is left out of it may be removed."""
    if options.catalog:
        return load(options.catalog)
    settings = load_settings()
    paths = paths_of(settings)
    if not paths:
        raise ConfigError("no catalog is named, and this host has none: write --catalog batch_models.yaml")
    return load(paths, settings.state_path)


def _with_api(options: argparse.Namespace, work: Callable[[Api], int]) -> int:
    """Do what needs Datadog's API; what it answers that ends the command is one line."""
    from batch_observability.datadog.connection import Api, ApiError

    found = access(os.environ, Options(site=site_of(os.environ, options.site)).site, options.url)
    api = Api(found, wait=_wait)
    try:
        return work(api)
    except ApiError as error:
        return _complain(error)
    except KeyboardInterrupt:
        _complain("interrupted: nothing was changed yet")
        return _INTERRUPTED


def _is_agreed(options: argparse.Namespace, lines: list[str]) -> bool:
    """Ask whether this may be removed; without a terminal only `--yes` says so."""
    for line in lines:
        _print(line)
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"{len(lines)} resources would be removed, and there is no terminal to ask at: add --yes")
    try:
        answer = input(f"Remove these {len(lines)} resources from Datadog? Write yes: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() == "yes":
        return True
    _complain("nothing was changed")
    return False


def _tell(step: Any) -> None:
    for line in step_lines(step):
        _print(line)


def _wait(seconds: float) -> None:
    if seconds >= _TOLD_WAIT_S:
        _complain(f"Datadog's rate limit is reached: waiting {seconds:.0f} s")
    time.sleep(seconds)


def _complain(what: object) -> int:
    print(f"batchobs: {what}", file=sys.stderr)  # noqa: T201  (the command's voice)
    return _FAILED


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (the command's voice)
