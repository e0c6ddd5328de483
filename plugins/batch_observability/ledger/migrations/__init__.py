"""
How the tables of the ledger come to be: one revision a file in `versions`, applied by Alembic.

Where there are no tables yet they are made as the newest revision has them, and whether a database is current is told
by `REVISIONS`: both without Alembic, which costs half a second. Tests hold them equal to what is in `versions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Oldest first.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]


def create(connection: Connection) -> None:
    """Make all tables where there are none, within the transaction that the connection is in."""
    from sqlalchemy import Column, MetaData, String, Table

    from batch_observability.ledger.tables import tables

    tables().metadata.create_all(connection, checkfirst=False)
    # As Alembic makes it (alembic/runtime/migration.py).
    version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
    version.create(connection)
    connection.execute(version.insert().values(version_num=HEAD))


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Bring a database to a revision, within the transaction that the connection is in."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    # A percent sign would be an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
