"""What the ledger of a state folder holds, read as any other program would: plain SQL on a SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from batch_observability.ledger.store import Ledger

if TYPE_CHECKING:
    from pathlib import Path


def ledger(state: Path, timeout_s: float = 10.0) -> Ledger:
    """Return the ledger that runs write to by default."""
    return Ledger(f"sqlite:///{state / 'ledger.db'}", timeout_s)


def rows(state: Path, table: str = "runs") -> list[dict[str, Any]]:
    """Return all rows of a table; none if there is no ledger yet."""
    path = state / "ledger.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return []
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def waiting(state: Path) -> list[str]:
    """Return the kinds of change that wait for the ledger, the oldest first."""
    found = sorted((state / "spool" / "ledger").glob("*.change.jsonl"))
    return [path.read_text("utf-8").partition('"kind":"')[2].partition('"')[0] for path in found]
