"""Tables and their revisions: made, current, older, newer."""

from __future__ import annotations

import stat

import pytest
from sqlalchemy import create_engine, inspect

from batch_observability.ledger import migrations
from batch_observability.ledger.store import Ledger, LedgerError
from batch_observability.ledger.tables import tables
from tests.ledger.conftest import TIMEOUT_S
from tests.ledger.runs import finished, started


def test_the_revisions_are_those_that_alembic_knows():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert list(reversed(known)) == list(migrations.REVISIONS)


def test_what_was_migrated_is_what_the_code_sees(ledger):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with create_engine(ledger._engine.url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables().metadata) == []


def test_tables_that_are_made_at_once_are_those_that_revisions_lead_to(ledger, url, rows):
    made = _schema(create_engine(ledger._engine.url))
    rows("DROP TABLE alembic_version")
    with create_engine(ledger._engine.url).begin() as connection:
        tables().metadata.drop_all(connection)
        migrations.upgrade(connection)
    assert _schema(create_engine(ledger._engine.url)) == made
    assert Ledger(url, TIMEOUT_S).apply(started())


def _schema(engine):
    """Return tables, and of each its columns, keys and indexes, in an order of their own."""
    inspector = inspect(engine)
    return {
        name: (
            sorted((column["name"], *map(str, column.values())) for column in inspector.get_columns(name)),
            inspector.get_pk_constraint(name)["constrained_columns"],
            sorted(
                f"{index | {'dialect_options': None}} { ({k: str(v) for k, v in index['dialect_options'].items()}) }"
                for index in inspector.get_indexes(name)
            ),
            inspector.get_table_options(name),
        )
        for name in inspector.get_table_names()
    }


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_file_is_made_when_it_is_first_used_and_for_its_user_only(url, tmp_path):
    deep = url.replace("/state/", "/state/a b/100%/")
    assert Ledger(deep, TIMEOUT_S).apply(started())
    for folder in ("state", "state/a b", "state/a b/100%"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
    engine = create_engine(deep)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state/a b/100%").iterdir()}
    engine.dispose()
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"), 0o600)


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_file_that_was_taken_away_is_made_again(url, tmp_path):
    ledger = Ledger(url, TIMEOUT_S)
    ledger.apply(started())
    (tmp_path / "state" / "ledger.db").unlink()
    with pytest.raises(LedgerError):
        ledger.apply(started())
    assert ledger.apply(started())


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_a_server_is_migrated_only_when_it_is_told_to(url):
    ledger = Ledger(url, TIMEOUT_S)
    with pytest.raises(LedgerError, match="has no tables yet: run batchobs ledger migrate") as raised:
        ledger.apply(started())
    assert not raised.value.retry
    assert ledger.migrate() == "nothing -> 0002"
    assert ledger.apply(started())


def test_migrating_again_changes_nothing(ledger):
    ledger.apply(finished())
    assert ledger.migrate() == "0002 -> 0002"
    assert ledger.outcomes(["run-1"]) == {"run-1": "success"}


def test_nothing_is_written_to_a_newer_schema(ledger, url, rows):
    ledger.apply(started())
    rows("UPDATE alembic_version SET version_num = '0999'")
    later = Ledger(url, TIMEOUT_S)
    for use in (lambda: later.apply(finished()), later.migrate, later.info):
        with pytest.raises(LedgerError, match=r"0999, .* newer version .*: upgrade airflow-batch") as raised:
            use()
        assert not raised.value.retry
    assert rows("SELECT outcome FROM runs") == [{"outcome": None}]
    assert rows("SELECT version_num FROM alembic_version") == [{"version_num": "0999"}]


# As the version before wrote them: two runs of a model, of which one is open, and one of another.
OLDER = (
    """INSERT INTO models VALUES
        ('churn', '{"name": "churn"}', 1000, 3000), ('never', '{"name": "never"}', 2000, 2000)""",
    """INSERT INTO tasks VALUES ('nightly', 'score', '{"name": "churn"}', 1000, 3000)""",
    *(
        f"""INSERT INTO runs (run_id, source, start_ns, end_ns, outcome, model_name, model_version, service, owner,
            tier, env, resource, dag_id, task_id, job, dag_run_id, map_index, try_number, trace_id, span_id, host, pid,
            model)
        VALUES ('{name}', 'airflow', {start_ns}, {end_ns}, {outcome}, '{model}', '1', 's', 'o', '1', 'prod',
            'nightly.score', 'nightly', 'score', '', '{name}', -1, 1, '{"f" * 32}', '{"f" * 16}', 'h', 1, '{{}}')"""
        for name, start_ns, end_ns, outcome, model in (
            ("first", 1000, 1500, "'success'", "churn"),
            ("second", 2000, 2500, "'success'", "churn"),
            ("open", 3000, "NULL", "NULL", "churn"),
            ("failed", 2000, 2600, "'failed'", "never"),
        )
    ),
)


@pytest.fixture
def older(url, dialect):
    """Address of a ledger of the version before promises, with runs in it."""
    opened = Ledger(url, TIMEOUT_S)
    opened._dialect.prepare()
    with opened._dialect.migrating(opened._engine, lambda: False) as connection:
        migrations.upgrade(connection, "0001")
        for statement in OLDER:
            connection.exec_driver_sql(statement)
    opened.close()
    return url


def test_an_older_file_migrates_itself_and_an_older_server_says_so(older, dialect):
    if dialect == "sqlite":
        assert Ledger(older, TIMEOUT_S).apply(started())
    else:
        with pytest.raises(LedgerError, match="is at schema revision 0001, 0002 is needed: run batchobs ledger migr"):
            Ledger(older, TIMEOUT_S).apply(started())
        assert Ledger(older, TIMEOUT_S).migrate() == "0001 -> 0002"


def test_nothing_is_lost_when_an_older_ledger_is_migrated(older):
    ledger = Ledger(older, TIMEOUT_S)
    assert ledger.migrate() == "0001 -> 0002"
    assert ledger.newest_successes() == {
        "churn": ({"name": "churn"}, 1000, 2500),
        "never": ({"name": "never"}, 2000, None),
    }
    assert [(found.run.run_id, found.run.clear_number) for found in ledger.open_runs("airflow")] == [("open", 0)]
    assert ledger.info()["outcomes"] == {"failed": 1, "success": 2}
    never, churn = reversed(ledger.attainment(0, 2000))
    assert (churn.succeeded, churn.recent_succeeded, churn.open_runs, churn.kept) == (2, 1, 1, {})
    assert (never.failed, never.last_outcome, never.last_success_ns) == (1, "failed", None)
    assert ledger.apply(finished(of=ledger.open_runs("airflow")[0].run, kept=1))
    assert ledger.attainment(0, 0)[0].kept == {"start_within": 1}


def test_a_migration_that_fails_leaves_nothing_behind(url, monkeypatch):
    create = migrations.create

    def fails(connection):
        create(connection)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(migrations, "create", fails)
    with pytest.raises(LedgerError, match="No space left on device"):
        Ledger(url, TIMEOUT_S).migrate()
    monkeypatch.undo()
    assert Ledger(url, TIMEOUT_S).migrate() == "nothing -> 0002"
