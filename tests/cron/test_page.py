"""The page about cron jobs says what there is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from batch_observability.cli import crontab, run
from batch_observability.context import CHANNEL_VARIABLE, RUN_VARIABLE

PAGE = (Path(__file__).parents[2] / "docs" / "cron.md").read_text(encoding="utf-8")


def parser_of(command):
    commands = argparse.ArgumentParser().add_subparsers()
    command.add_parser(commands)
    return next(iter(commands.choices.values()))


def test_every_option_of_run_is_on_the_page_and_no_other():
    shown = {option for action in parser_of(run)._actions for option in action.option_strings if "--sla-" not in option}
    table = PAGE.partition("| option |")[2].partition("\n\n")[0]
    said = set(re.findall(r"--[a-z][a-z-]*", table)) - {"--sla-finish-within"}
    assert said == shown - {"-h", "--help"}


def test_every_command_of_crontab_is_on_the_page():
    (verbs,) = [action.choices for action in parser_of(crontab)._actions if action.choices]
    assert [verb for verb in verbs if f"batchobs crontab {verb}" not in PAGE] == []


@pytest.mark.parametrize("name", [CHANNEL_VARIABLE, RUN_VARIABLE, "TRACEPARENT", "OTEL_RESOURCE_ATTRIBUTES"])
def test_what_a_job_finds_in_its_environment_is_on_the_page(name):
    assert f"| `{name}`" in PAGE
