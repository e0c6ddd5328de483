"""A run is told once: whoever closes it in the ledger tells it; and a ledger that is away keeps nobody."""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import pytest

from batch_observability.export import deliver
from batch_observability.export.signals import LOGS, METRICS, TRACES
from batch_observability.ledger.store import Ledger
from tests.export.batches import run_batch
from tests.export.sender import waiting
from tests.export.worlds import delivery, log_lines, refusing
from tests.export.worlds import world as world  # noqa: PLC0414  (a fixture)
from tests.ledger.runs import finished, run, started, verdict


def outcome(state, run_id="run-1"):
    return Ledger(f"sqlite:///{state / 'ledger.db'}", 5).outcomes([run_id]).get(run_id)


@contextlib.contextmanager
def locked(state):
    """Hold the ledger's only write lock, as a process does that hangs."""
    Ledger(f"sqlite:///{state / 'ledger.db'}", 5).apply(started("another"))
    with contextlib.closing(
        sqlite3.connect(state / "ledger.db", isolation_level=None, check_same_thread=False)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def test_whoever_closes_the_run_tells_it(world, tmp_path):
    backends = world(otlp=None)
    report = delivery(tmp_path, "otlp").deliver(run_batch(), finished())
    assert report.told
    assert report.ledger == ""
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert len(log_lines(tmp_path)) == 1
    assert waiting(tmp_path) == []
    assert outcome(tmp_path) == "success"


def test_a_run_that_somebody_has_closed_is_not_told_again(world, tmp_path):
    backends = world(otlp=None)
    of = run()
    own = delivery(tmp_path, "otlp", "spool")
    own.ledger.apply(finished(of=of, token="somebody", outcome="killed"))
    report = own.deliver(run_batch(), finished(of=of, token="me"))
    assert not report.told
    assert report.targets == {"otlp": "", "spool": ""}
    assert backends["otlp"].attempts == 0
    assert log_lines(tmp_path) == []
    assert waiting(tmp_path) == []
    assert outcome(tmp_path) == "killed"


def test_who_tells_the_same_ending_again_is_not_another(world, tmp_path):
    backends = world(otlp=None)
    of = run()
    own = delivery(tmp_path, "otlp")
    own.ledger.apply(finished(of=of, token="me"))
    assert own.deliver(run_batch(), finished(of=of, token="me")).told
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]


@pytest.mark.parametrize("change", [started(), verdict(run_id="run-1")])
def test_what_comes_too_late_to_change_a_run_is_told_all_the_same(world, tmp_path, change):
    """A start that is told after the end is a start."""
    backends = world(otlp=None)
    own = delivery(tmp_path, "otlp")
    own.ledger.apply(finished())
    assert own.deliver(run_batch(), change).told
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]


def test_the_log_record_is_written_once_the_run_is_ours(world, tmp_path):
    seen = []
    world(otlp=lambda _: seen.append((outcome(tmp_path), len(log_lines(tmp_path)))))
    delivery(tmp_path, "otlp").deliver(run_batch(), finished())
    assert seen == [("success", 1)] * 3


def test_the_change_is_on_disk_before_anything_else(world, tmp_path):
    world(otlp=None)
    seen = []
    delivery(tmp_path, "otlp").deliver(
        run_batch(), finished(), on_safe=lambda _: seen.append((waiting(tmp_path), outcome(tmp_path)))
    )
    assert seen == [(["ledger.change", "otlp.logs", "otlp.metrics", "otlp.traces"], None)]


def test_where_the_ledger_does_not_answer_signals_are_sent_and_the_change_waits(world, tmp_path):
    backends = world(otlp=None)
    own = delivery(tmp_path, "otlp", ledger_timeout=0.1)
    with locked(tmp_path):
        report = own.deliver(run_batch(), finished())
    assert report.told
    assert "is locked" in report.ledger
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert len(log_lines(tmp_path)) == 1
    assert waiting(tmp_path) == ["ledger.change"]
    assert [(one.target, one.reason) for one in own.spool.status()] == [("ledger", report.ledger)]
    assert own.spool.holds_change_of("run")


def unlocks(connection, then=lambda: None):
    """Return a fault that lets go of the ledger when the first batch is sent, and does something else."""
    mutex = threading.Lock()

    def fault(_):
        with mutex:
            if connection.in_transaction:
                connection.rollback()
                then()

    return fault


def test_the_change_is_brought_in_once_the_ledger_is_back(world, tmp_path, monkeypatch):
    monkeypatch.setattr(deliver, "_FIRST_WAIT_S", 0.01)
    with locked(tmp_path) as connection:
        backends = world(otlp=unlocks(connection))
        report = delivery(tmp_path, "otlp", ledger_timeout=0.1, patience_s=20).deliver(run_batch(), finished())
    assert report.ledger == ""
    assert report.told
    assert outcome(tmp_path) == "success"
    assert waiting(tmp_path) == []
    assert backends["otlp"].attempts == 3
    assert len(log_lines(tmp_path)) == 1


def test_who_learns_late_that_the_run_was_told_sends_nothing_more(world, tmp_path, monkeypatch):
    """The ledger was away, and somebody else has closed the run meanwhile."""
    monkeypatch.setattr(deliver, "_FIRST_WAIT_S", 0.01)
    of = run()
    own = delivery(tmp_path, "otlp", ledger_timeout=0.1, patience_s=20)
    refuse = refusing(TRACES)
    with locked(tmp_path) as connection:
        other = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", 5)
        unlock = unlocks(connection, then=lambda: other.apply(finished(of=of, token="somebody", outcome="killed")))
        backends = world(otlp=lambda batch: (unlock(batch), refuse(batch)))
        report = own.deliver(run_batch(), finished(of=of, token="me"))
    assert not report.told
    assert backends["otlp"].signals() == [LOGS, METRICS]
    assert backends["otlp"].attempts == 3
    assert waiting(tmp_path) == []
    assert outcome(tmp_path) == "killed"


def garbage(path):
    path.write_bytes(b"no database at all\n" * 1000)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(garbage, "file is not a database"), (lambda path: path.mkdir(), "is a folder")],
)
def test_a_ledger_that_cannot_be_used_is_told_and_not_tried_again(world, tmp_path, spoil, why):
    spoil(tmp_path / "ledger.db")
    backends = world(otlp=None)
    own = delivery(tmp_path, "otlp", patience_s=30)
    report = own.deliver(run_batch(), finished())
    assert why in report.ledger
    assert report.told
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert waiting(tmp_path) == ["ledger.change"]


def test_a_change_without_signals_is_brought_in_or_kept(world, tmp_path):
    backends = world(otlp=None)
    own = delivery(tmp_path, "otlp", ledger_timeout=0.1)
    assert own.record("run-1-started", started()).ledger == ""
    assert waiting(tmp_path) == []
    with locked(tmp_path):
        report = own.record("verdict-run-1", verdict(run_id="run-1"))
    assert report.ledger
    assert waiting(tmp_path) == ["ledger.change"]
    assert backends["otlp"].attempts == 0
    assert outcome(tmp_path) is None
