"""The log file that an Agent tails, and the one of our own warnings."""

from __future__ import annotations

import json
import logging
import os
import stat
from datetime import UTC, datetime

import pytest

from batch_observability import schema
from batch_observability.export import log_file
from batch_observability.export.log_file import append_log, as_line, log_problems_to
from batch_observability.export.signals import METRICS
from tests.export.batches import run_batch


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def log_lines(state):
    return [json.loads(line) for line in (state / "logs" / "batch_models.jsonl").read_text("utf-8").splitlines()]


def test_a_line_of_the_log_file_is_what_the_contract_says(tmp_path):
    batch = run_batch()
    append_log(tmp_path / "logs", batch)
    (line,) = log_lines(tmp_path)
    (record,) = batch.logs
    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.utcoffset() == datetime.now(UTC).utcoffset()
    assert abs(stamp.timestamp() - record.time_ns / 1e9) < 1e-5
    assert line == {
        "level": "error",
        "logger": "batch_observability",
        "event": "batch model run finished",
        **record.attributes,
    }
    assert set(line) - set(schema.LOG_FIELDS) == set()


def test_a_line_is_one_line_whatever_the_text(tmp_path):
    batch = run_batch()
    batch.logs[0].attributes[schema.LOG_ERROR_STACK] = "first\nsecond\u2028third\r"
    append_log(tmp_path / "logs", batch)
    append_log(tmp_path / "logs", batch)
    text = (tmp_path / "logs" / "batch_models.jsonl").read_bytes()
    assert text.count(b"\n") == 2
    assert json.loads(text.split(b"\n")[1])[schema.LOG_ERROR_STACK] == "first\nsecond\u2028third\r"


def test_the_log_file_and_its_folder_are_for_the_owner_only(tmp_path):
    before = os.umask(0)
    try:
        append_log(tmp_path / "state" / "logs", run_batch())
    finally:
        os.umask(before)
    assert mode(tmp_path / "state" / "logs" / "batch_models.jsonl") == 0o600
    assert mode(tmp_path / "state" / "logs") == mode(tmp_path / "state") == 0o700


def test_a_batch_without_a_record_writes_no_line(tmp_path):
    append_log(tmp_path / "logs", run_batch().only(frozenset({METRICS})))
    assert not (tmp_path / "logs").exists()


def test_the_log_file_is_rotated_when_it_is_large(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "_LOG_BYTES", 2000)
    for _ in range(10):
        append_log(tmp_path / "logs", run_batch())
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files in (["batch_models.jsonl", "batch_models.jsonl.1"], ["batch_models.jsonl.1"])
    assert all(path.stat().st_size < 4000 for path in (tmp_path / "logs").iterdir())


def test_two_processes_that_rotate_at_once_lose_no_line(tmp_path, monkeypatch):
    """The other process writes, rotates and writes on while this one is between its write and its look at the size."""
    folder = tmp_path / "logs"
    batches = [run_batch() for _ in range(6)]
    append_log(folder, batches[0])
    monkeypatch.setattr(log_file, "_LOG_BYTES", (folder / "batch_models.jsonl").stat().st_size * 3.5)
    append_log(folder, batches[1])
    append_log(folder, batches[2])
    original, others = os.fstat, iter(batches[4:])

    def fstat(descriptor):
        for batch in others:
            append_log(folder, batch)
        return original(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)
    append_log(folder, batches[3])
    lines = b"".join(path.read_bytes() for path in folder.iterdir()).splitlines()
    assert len(lines) == 6


@pytest.fixture
def _own_logger():
    """Take away the handlers that a test adds to our logger."""
    logger = logging.getLogger("batch_observability")
    before, propagate = list(logger.handlers), logger.propagate
    yield
    for handler in [handler for handler in logger.handlers if handler not in before]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = propagate


@pytest.mark.usefixtures("_own_logger")
def test_our_own_warnings_go_to_a_file_for_the_owner_only(tmp_path):
    log_problems_to(tmp_path / "state" / "logs")
    logging.getLogger("batch_observability.export").warning("the Agent is away")
    path = tmp_path / "state" / "logs" / "observer.log"
    assert path.read_text("utf-8").endswith(f" {os.getpid()} WARNING the Agent is away\n")
    assert mode(path) == 0o600


@pytest.mark.usefixtures("_own_logger")
def test_the_file_of_our_own_warnings_stays_private_when_it_is_rotated(tmp_path):
    log_problems_to(tmp_path / "logs")
    for _ in range(12):
        logging.getLogger("batch_observability.export").warning("x" * 100_000)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["observer.log", "observer.log.1"]
    assert {mode(path) for path in (tmp_path / "logs").iterdir()} == {0o600}


def test_where_our_own_warnings_cannot_be_written_they_go_where_they_went(tmp_path):
    (tmp_path / "logs").write_text("a file")
    logger = logging.getLogger("batch_observability")
    before = list(logger.handlers)
    log_problems_to(tmp_path / "logs")
    assert logger.handlers == before
    assert logger.propagate


def test_a_record_without_a_fraction_of_a_second_is_written_alike():
    record = run_batch().logs[0]
    line = as_line(type(record)(1_700_000_000_000_000_000, "info", "e", 1, 2, {}))
    assert line["timestamp"] == "2023-11-14T22:13:20.000000+00:00"
