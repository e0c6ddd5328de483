"""Many processes at once: none is refused, nothing is lost, and each run is closed by one of them."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from batch_observability.ledger.store import Ledger
from tests.ledger.conftest import TIMEOUT_S
from tests.ledger.crowd import crowd
from tests.ledger.runs import ago_ns, promised


@pytest.mark.thorough
def test_64_processes_make_one_file_and_write_to_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'state' / 'ledger.db'}"
    assert crowd(url, 64, "write", 2) == [{"answer": 2}] * 64
    info = Ledger(url, TIMEOUT_S).info()
    assert (info["runs"], info["open"]) == (128, 0)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"ledger.db", "ledger.db.lock"}


def test_processes_migrate_one_database_and_write_to_it(server):
    url = server.create_database()
    assert sorted(told["answer"] for told in crowd(url, 4, "migrate")) == ["0002 -> 0002"] * 3 + ["nothing -> 0002"]
    assert crowd(url, 16, "write", 2) == [{"answer": 2}] * 16
    info = Ledger(url, TIMEOUT_S).info()
    assert (info["runs"], info["open"]) == (32, 0)


def test_of_all_who_close_a_run_at_once_one_has_closed_it(ledger, url, rows):
    told = crowd(url, 10, "close", 4)
    closed = Counter(name for each in told for name in each["answer"])
    assert closed == {f"run-{number}": 1 for number in range(4)}
    assert rows("SELECT count(*) AS n FROM stages") == [{"n": 4}]


@pytest.mark.thorough
def test_of_10_000_runs_none_is_lost(ledger, url, rows):
    assert crowd(url, 4, "replay", 2500) == [{"answer": 2500}] * 4
    assert ledger.info()["runs"] == 10_000
    assert rows("SELECT count(*) AS n FROM stages") == rows("SELECT count(*) AS n FROM measurements") == [{"n": 10_000}]
    assert len(ledger.observed_tasks()) == 20
    assert ledger.migrate() == "0002 -> 0002"
    long_ago = ago_ns(timedelta(days=500))
    rows(f"UPDATE runs SET start_ns = {long_ago}, end_ns = {long_ago} WHERE map_index < 2000")
    assert ledger.prune(timedelta(days=400)) == 8000
    assert ledger.info()["outcomes"] == {"success": 2000}
    assert rows("SELECT count(*) AS n FROM stages") == [{"n": 2000}]


def test_of_all_who_claim_a_cause_at_once_one_tells_it(ledger, url, rows):
    told = crowd(url, 16, "claim", 3)
    claimed = Counter(one for each in told for one in each["answer"])
    assert claimed == {f"{state} {number}": 1 for number in range(3) for state in ("at_risk", "breached")}
    assert rows("SELECT count(*) AS n FROM promises WHERE at_risk_ns IS NOT NULL AND breached_ns IS NOT NULL") == [
        {"n": 3}
    ]


def test_of_all_who_claim_an_episode_at_once_one_tells_it(ledger, url, rows):
    """Each sees another cause of it: half of them as one that was at risk before."""
    told = crowd(url, 16, "begin", 3)
    claimed = Counter(one for each in told for one in each["answer"])
    assert claimed == {f"episode-{number}": 1 for number in range(3)}
    assert rows("SELECT count(*) AS n FROM promises WHERE breached_ns IS NOT NULL") == [{"n": 3}]


def test_of_all_who_see_a_recovery_at_once_one_tells_it(ledger, url):
    ledger.apply_all([promised("a"), promised("b")])
    assert sum(each["answer"] for each in crowd(url, 16, "recover")) == 1
    assert ledger.open_promises() == []
