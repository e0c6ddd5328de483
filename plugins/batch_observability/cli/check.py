"""
`batchobs check`: look once for promises that are broken, tell those that nobody has told, and say what is broken now.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from batch_observability.cli.catalogs import add_catalog, catalog_of
from batch_observability.cli.lookout import Lookout
from batch_observability.cli.options import add_filters, duration, load_settings, refuse_unknown
from batch_observability.cli.told import Told, of_change, of_row
from batch_observability.cli.words import aligned, document
from batch_observability.ledger.records import Promised, PromiseRow, Recovered
from batch_observability.sla.promises import nanoseconds

if TYPE_CHECKING:
    from batch_observability.ledger.store import Ledger

_BROKEN = _INCOMPLETE = 1


def add_parser(commands: Any) -> None:
    """Add `check`; it sets `run`, which takes the options and returns the exit code."""
    check = commands.add_parser(
        "check",
        help="say what is broken or missed now; the exit code is 0 only if nothing is",
        description="Look once at what is due, what goes on and how old results are, tell what nobody has told, and "
        "say what is broken or missed now. The exit code is 0 if nothing is, 1 if something is or cannot be asked.",
    )
    day = timedelta(days=1)
    check.add_argument("--since", type=duration, default=day, metavar="DURATION", help="and was broken within it (1d)")
    add_filters(check)
    add_catalog(check, "which says when jobs are due")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from batch_observability.ledger.store import LedgerError

    told: list[Promised | Recovered] = []
    settings = load_settings()
    lookout = Lookout(settings, told.append, gauges=False, catalog=catalog_of(options, settings))
    models: dict[str, dict[str, Any]] = {}
    rows: list[PromiseRow] = []
    complete = True
    try:
        if not lookout.is_blank:
            complete = lookout.look()
            rows = lookout.delivery.ledger.open_promises()
            models = _models(lookout.delivery.ledger, rows)
        refuse_unknown(options, models)
    except LedgerError as error:
        lookout.problems.say(str(error))
        complete = False
    owners = {name: str(model.get("owner", "")) for name, model in models.items()}
    chosen = {name for name in models if options.model in ("", name) and options.owner in ("", owners[name])}
    since_ns = time.time_ns() - nanoseconds(options.since)
    keys = {*lookout.still_due(), *(change.key for change in told)}
    broken = [of_row(row) for row in rows if row.model_name in chosen and _is_now(row, since_ns, keys)]
    news = [one for one in (of_change(change, owners) for change in told) if one.model in chosen]
    _print(broken, news, len(chosen), complete=complete, as_json=options.json)
    return _BROKEN if broken else 0 if complete else _INCOMPLETE


def _models(ledger: Ledger, rows: Iterable[PromiseRow]) -> dict[str, dict[str, Any]]:
    """Return what is known of models; of some nothing may have arrived yet but that they broke a promise."""
    known = {name: model for name, (model, _, _) in ledger.newest_successes().items()}
    return {**{row.model_name: row.model for row in rows}, **known}


def _is_now(row: PromiseRow, since_ns: int, keys: Collection[str]) -> bool:
    """Whether it was broken since then, or goes on to be: nobody has run it, or the model as a whole is not well."""
    return (row.breached_ns or 0) >= since_ns or row.episode is not None or row.key in keys


def _print(broken: list[Told], told: list[Told], models: int, *, complete: bool, as_json: bool) -> None:
    if as_json:
        found = {"breached": [one.as_json() for one in broken], "told": [one.as_json() for one in told]}
        text = document({**found, "complete": complete, "models": models})
    elif broken:
        now_ns = time.time_ns()
        text = "\n".join(aligned(one.cells(now_ns) for one in broken))
    elif complete:
        text = f"all promises are kept ({models:,} {'model' if models == 1 else 'models'})"
    else:
        return
    print(text)  # noqa: T201  (the command's voice)
