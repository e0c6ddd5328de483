"""
`batchobs models`: the batch models that are known on this host, and of each what is said of it, and where.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from batch_observability.airflow import registry
from batch_observability.catalog import Cataloged
from batch_observability.catalog.merging import Said, why
from batch_observability.cli.catalogs import add_catalog, catalog_of
from batch_observability.cli.options import load_settings
from batch_observability.cli.words import aligned, document
from batch_observability.config import ConfigError
from batch_observability.cron import known
from batch_observability.model import SLA

_TERMS = SLA().terms()
_COLUMNS = ("model", "owner", "tier", "service", "known_by", "runs_as")


def add_parser(commands: Any) -> None:
    """Add `models`; each of its commands sets `run`, which takes the options and returns the exit code."""
    models = commands.add_parser("models", help="see the models that are known here, and where what is said comes from")
    verbs = models.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    listed = verbs.add_parser("list", help="the models of the catalog, of DAGs parsed here and of jobs that ran here")
    listed.set_defaults(run=_list)
    show = verbs.add_parser(
        "show",
        help="what is said of a model",
        description="Say what holds of a model: what code says, else what the catalog says, else the default.",
    )
    show.add_argument("name", metavar="NAME", help="of the model")
    show.add_argument("--why", action="store_true", help="say of each field where it comes from, and fields unsaid too")
    show.set_defaults(run=_show)
    for one in (listed, show):
        add_catalog(one, "beside what is known of this host")
        one.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass
class _Known:
    """
    A model as it is known here.

    Attributes:
        code: what is written where in code, as text by field.
        tasks: that are it, by code or by the catalog.
        job: what its cron job said last, as text by field.
    """

    entry: Cataloged | None = None
    code: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    job: dict[str, str] = field(default_factory=dict)

    @property
    def known_by(self) -> list[str]:
        """Who knows of it."""
        there = {"code": self.code, "catalog": self.entry, "job": self.job}
        return [name for name, found in there.items() if found]


def _known(options: argparse.Namespace) -> dict[str, _Known]:
    settings = load_settings()
    models = {name: _Known(entry) for name, entry in catalog_of(options, settings).models.items()}
    for (dag_id, task_id), one in sorted(registry.declared(settings.state_path).items()):
        model, task = models.setdefault(one.model["name"], _Known()), f"{dag_id}.{task_id}"
        model.tasks.append(task)
        if one.code is not None:
            model.code.append((task, one.code))
    for name, job in known.known(settings.state_path).items():
        promised = job.model["objectives"] | {k: v for k, v in job.model["terms"].items() if v != _TERMS[k]}
        of_job = job.model | {f"sla.{key}": text for key, text in promised.items()}
        texts = {key: text for key, text in of_job.items() if isinstance(text, str) and text}
        times = {"schedule": job.schedule, "timezone": job.timezone}
        if job.by != known.BY_CATALOG:
            models.setdefault(name, _Known()).job = texts | {key: text for key, text in times.items() if text}
    return models


def _said(name: str, one: _Known) -> list[Said]:
    return why(name, one.code, one.entry, one.job)


def _list(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    for name, one in sorted(_known(options).items()):
        value: dict[str, str] = {}
        for said in _said(name, one):
            value.setdefault(said.key, said.value)
        runs_as = [*one.tasks, *(["cron job"] if one.job or (one.entry and one.entry.schedule) else [])]
        fields = {key: value[key] for key in ("owner", "tier", "service")}
        rows.append({"model": name, **fields, "known_by": one.known_by, "runs_as": runs_as})
    if options.json:
        text = document({"models": rows})
    elif rows:
        cells = [[_shown(row[key]) for key in _COLUMNS] for row in rows]
        text = "\n".join(aligned([["MODEL", "OWNER", "TIER", "SERVICE", "KNOWN BY", "RUNS AS"], *cells]))
    else:
        text = "no models are known here: batchobs catalog init writes a first catalog"
    print(text)  # noqa: T201  (the command's voice)
    return 0


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value) or "-"
    more = f" and {len(value) - 2} more" if len(value) > 3 else ""
    return ", ".join(value[:2] if more else value) + more or "-"


def _show(options: argparse.Namespace) -> int:
    models = _known(options)
    if options.name not in models:
        close = get_close_matches(options.name, models, n=1)
        remedy = f"write {close[0]!r}" if close else "batchobs models list says which are"
        raise ConfigError(f"model {options.name!r} is not known here: {remedy}")
    one = models[options.name]
    said = _said(options.name, one)
    if not options.why:
        said = [each for each in said if each.value]
    if options.json:
        text = document({"model": options.name, "runs_as": one.tasks, "fields": [asdict(each) for each in said]})
    elif options.why:
        text = "\n".join(aligned([[each.key, each.value or "-", each.source] for each in said]))
    else:
        text = "\n".join(aligned([[each.key, each.value] for each in said]))
    print(text)  # noqa: T201  (the command's voice)
    return 0
