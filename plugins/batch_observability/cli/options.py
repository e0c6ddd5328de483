"""
Options that several commands have, what they name, and what is wrong with them in one line.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from batch_observability import config
from batch_observability.objective import ModelError, parse_duration


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose models."""
    parser.add_argument("--model", default="", metavar="NAME", help="this model only")
    parser.add_argument("--owner", default="", metavar="TEAM", help="models of this owner only")


def duration(text: str) -> timedelta:
    """Read a duration that was given to an option."""
    try:
        value = parse_duration(text)
    except ModelError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is {error}") from None
    if value > timedelta(days=36_500):
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a ledger reaches; write for example 90d")
    return value


def load_settings() -> config.Settings:
    """Return the settings of this process, with those of airflow.cfg."""
    return config.load(section=lambda key: config.airflow_option(config.SECTION, key))


def is_blank(settings: config.Settings) -> bool:
    """Whether there is no ledger yet: it is made by the first run, and is to belong to whoever runs it."""
    return not settings.ledger_url and not (settings.state_path / "ledger.db").exists()


def refuse_unknown(options: argparse.Namespace, known: dict[str, dict[str, Any]]) -> None:
    """Raise `ConfigError` if no model is chosen by what was asked for."""
    owners = {str(model.get("owner", "")) for model in known.values()} - {""}
    for option, value, names in (("--model", options.model, set(known)), ("--owner", options.owner, owners)):
        if value and value not in names:
            close = get_close_matches(value, names, n=1)
            remedy = f"write {close[0]!r}" if close else "batchobs sla lists what there is"
            raise config.ConfigError(f"{option} {value!r} is unknown to the ledger: {remedy}")
    if options.model and options.owner and known[options.model].get("owner", "") != options.owner:
        owner = known[options.model].get("owner") or "nobody"
        raise config.ConfigError(
            f"--owner {options.owner!r}: model {options.model!r} belongs to {owner}; leave one out"
        )
