"""The reference pages are what the code prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batch_observability import reference, schema
from batch_observability.config import Settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["telemetry", "settings"])
def test_a_page_is_as_it_would_be_printed_now(page):
    command = [sys.executable, "-m", "batch_observability.reference", page]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (DOCS / f"{page}.md").read_text(encoding="utf-8") == printed


def test_pages_have_every_name():
    telemetry, settings = reference.telemetry(), reference.settings()
    for table in (schema.METRICS, schema.ATTRIBUTES, schema.LOG_FIELDS, schema.SPANS):
        assert not [name for name in table if f"`{name}`" not in telemetry]
    assert not [name for name in Settings().as_frame() if f"`BATCHOBS_{name.upper()}`" not in settings]


def test_tables_have_as_many_cells_in_every_row():
    for page in (reference.telemetry(), reference.settings()):
        for table in page.split("\n\n"):
            rows = [line.replace("\\|", "") for line in table.splitlines() if line.startswith("|")]
            assert len({row.count("|") for row in rows}) <= 1
