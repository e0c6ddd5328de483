"""The page that `make test-faults` ends with, docs/table-of-deaths.md: tables for a terminal and for Markdown."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.live.agent import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PATH = REPOSITORY / "docs" / "table-of-deaths.md"
PACKAGES = ("apache-airflow", "ddtrace", "opentelemetry-sdk", "ddapm-test-agent")
SECTIONS = ("What becomes of a run", "Beside plain ddtrace and plain OpenTelemetry", "The hooks", "Recovery")


class Page:
    """Sections by title; complete when all are there."""

    def __init__(self) -> None:
        """Has none yet."""
        self._sections: dict[str, str] = {}

    def add(self, title: str, *parts: str) -> None:
        """Adds a section of paragraphs and tables."""
        self._sections[title] = "\n\n".join(parts)

    def text(self) -> str:
        """Returns the sections that there are."""
        return "\n\n".join(f"## {title}\n\n{self._sections[title]}" for title in SECTIONS if title in self._sections)

    def write(self) -> None:
        """Writes the page, if it is complete: a part of the tests does not overwrite all of it."""
        if all(title in self._sections for title in SECTIONS):
            head = "# The table of deaths"
            what = paragraph(
                """
                Written by `make test-faults`, which overwrites it: a real Airflow, a real task for each row, killed or
                hindered for real, and what was found afterwards at Datadog's test agent, at a DogStatsD intake, in the
                ledger and in the log file.
                """
            )
            PATH.write_text(f"{head}\n\n{what}\n\n{paragraph(machine())}\n\n{self.text()}\n", encoding="utf-8")


def machine() -> str:
    """Returns date, machine and versions."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES if _version(name))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}. {os.cpu_count()} cores, Linux {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}, {versions}."
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # The test agent lives in an environment of its own.
        found = (REPOSITORY / ".venv-agent").glob(f"lib/*/site-packages/{name.replace('-', '_')}-*.dist-info")
        return next((path.name.removesuffix(".dist-info").rpartition("-")[2] for path in found), "")


def paragraph(text: str) -> str:
    """Returns text in lines."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns are aligned on a terminal too."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join((line(lines[0]), line(["-" * width for width in widths]), *map(line, lines[1:])))
