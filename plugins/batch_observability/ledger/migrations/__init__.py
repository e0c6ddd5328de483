"""
How the tables of the ledger come to be: one revision a file in `versions`, applied by Alembic.

Whether a database is current is told without Alembic, which costs half a second: by `REVISIONS`, which a test holds
equal to what is in `versions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Oldest first.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Bring a database to a revision, within the transaction that the connection is in."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    # A percent sign would be an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
