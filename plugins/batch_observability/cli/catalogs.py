"""
The catalog that a command is to go by: the one that `--catalog` names, or this host's.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from batch_observability.catalog import Catalog, Mistake, load, read
from batch_observability.catalog.places import paths_of
from batch_observability.cli.words import one_line
from batch_observability.config import Settings
from batch_observability.cron.schedule import ScheduleError, parse, zone_of


def add_catalog(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--catalog`, which may be there several times."""
    text = f"batch_models.yaml, or a folder of such, {what}; may be repeated (BATCHOBS_CATALOG)"
    parser.add_argument("--catalog", type=Path, action="append", metavar="FILE", help=text)


def catalog_of(options: argparse.Namespace, settings: Settings) -> Catalog:
    """
    Return the catalog to go by.

    What is wrong in this host's is said on stderr, and what is right is used: who looks for missed jobs is not to stop
    for it.

    Raises:
        CatalogError: if something is wrong in one that was named.
    """
    if options.catalog:
        return load(options.catalog)
    catalog, mistakes = read(paths_of(settings), settings.state_path)
    wrong = wrong_schedules(catalog)
    for mistake in (*mistakes, *wrong):
        print(f"batchobs: {one_line(str(mistake))}", file=sys.stderr)  # noqa: T201  (the command's voice)
    places = {(one.file, one.line) for one in wrong}
    models = {
        name: replace(one, schedule="", timezone="")
        if {(one.file, one.lines.get(key)) for key in ("schedule", "timezone")} & places
        else one
        for name, one in catalog.models.items()
    }
    return replace(catalog, models=models)


def wrong_schedules(catalog: Catalog) -> list[Mistake]:
    """Return which schedules and time zones of a catalog cannot be read; its reader knows their form only."""
    found = []
    for name, one in catalog.models.items():
        for key, understand, text in (("timezone", zone_of, one.timezone), ("schedule", parse, one.schedule)):
            try:
                if text:
                    understand(text)
            except ScheduleError as error:
                found.append(Mistake(one.file, one.lines[key], key, f"{key} of model {name!r}: {error}"))
    return found
