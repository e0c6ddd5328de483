"""Signals that wait on disk."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from batch_observability.export.signals import METRICS, TRACES
from batch_observability.export.spool import Spool
from tests.export.batches import run_batch

REPOSITORY = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from batch_observability.export.spool import Spool
from tests.export.batches import run_batch
spool = Spool(Path(sys.argv[1]), 100)
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    spool.put("otlp", run_batch(name=f"{sys.argv[2]}-{number}"))
"""


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "state" / "spool", 256)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_batch_is_one_document_on_a_line_for_each_signal(spool):
    batch = run_batch(name="a name/with: odd; characters")
    entry = spool.put("otlp", batch)
    assert set(entry.files) == {"traces", "metrics", "logs", "events"}
    assert sorted(entry.files.values()) == sorted(spool.waiting())
    for signal, path in entry.files.items():
        assert path.name.endswith(f"-a_name_with__odd__characters.{signal}.jsonl")
        (line,) = path.read_text(encoding="utf-8").splitlines()
        assert len(json.loads(line)) == 1


def test_files_are_for_the_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        entry = Spool(tmp_path / "state" / "spool", 1).put("otlp", run_batch())
    finally:
        os.umask(before)
    assert {mode(path) for path in entry.files.values()} == {0o600}
    assert {mode(tmp_path / "state" / part) for part in ("", "spool", "spool/otlp")} == {0o700}


def test_signals_that_somebody_has_taken_are_removed(spool):
    entry = spool.put("otlp", run_batch())
    entry.remove(frozenset({METRICS, TRACES}))
    assert {path.name.split(".")[-2] for path in spool.waiting()} == {"logs", "events"}
    entry.remove(frozenset({METRICS, "logs", "events"}))
    assert spool.waiting() == []


def test_what_waits_is_given_oldest_first_across_targets(spool):
    for number, target in enumerate(("otlp", "datadog", "otlp")):
        spool.put(target, run_batch(name=f"n{number}").only(frozenset({METRICS})))
    assert [path.name.split("-")[1] for path in spool.waiting()] == [
        "n0.metrics.jsonl",
        "n1.metrics.jsonl",
        "n2.metrics.jsonl",
    ]


def test_above_the_bound_the_oldest_go_and_are_counted(tmp_path):
    spool = Spool(tmp_path / "spool", 1)
    batch = run_batch().only(frozenset({METRICS}))
    large = replace(batch, points=batch.points * 60)
    dropped = [spool.put("otlp", replace(large, name=f"n{number}")).dropped for number in range(6)]
    sizes = [path.stat().st_size for path in spool.waiting()]
    room = 1_000_000 // sizes[0]
    assert 1 < room < 6
    assert sum(sizes) <= 1_000_000
    assert dropped == [0] * room + [1] * (6 - room)
    assert [path.name.split("-")[1] for path in spool.waiting()] == [f"n{n}.metrics.jsonl" for n in range(6 - room, 6)]


def test_a_batch_that_alone_is_above_the_bound_is_kept(tmp_path):
    spool = Spool(tmp_path / "spool", 1)
    batch = run_batch().only(frozenset({METRICS}))
    entry = spool.put("otlp", replace(batch, points=batch.points * 400))
    assert entry.dropped == 0
    assert spool.waiting() == list(entry.files.values())


def test_a_file_that_another_process_has_just_sent_is_no_error(spool, monkeypatch):
    entry = spool.put("otlp", run_batch())
    paths = spool.waiting()
    entry.remove(frozenset(entry.files))
    monkeypatch.setattr(Spool, "waiting", lambda self: paths)
    assert spool.put("otlp", run_batch()).dropped == 0


def test_two_processes_write_at_once_and_no_document_is_lost_or_half(spool):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(spool.folder), name],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("a", "b")
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        for writer in writers:
            writer.communicate(timeout=30)
            assert writer.returncode == 0
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    traces = [path for path in spool.waiting() if path.name.endswith(".traces.jsonl")]
    names = {path.name.partition("-")[2].partition(".")[0] for path in traces}
    assert names == {f"{name}-{number}" for name in "ab" for number in range(20)}
    for path in spool.waiting():
        assert json.loads(path.read_text(encoding="utf-8"))
    assert list(spool.folder.rglob("*.part")) == []


def test_a_file_in_place_of_the_folder_is_an_os_error(tmp_path):
    (tmp_path / "spool").write_text("not a folder")
    with pytest.raises(OSError, match="spool"):
        Spool(tmp_path / "spool", 1).put("otlp", run_batch())


def full_disk(monkeypatch, after):
    """Let the disk be full after so many files."""
    original, count = os.fsync, iter(range(1000))

    def fsync(descriptor):
        if next(count) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_leaves_no_half_written_file(spool, monkeypatch):
    full_disk(monkeypatch, after=0)
    with pytest.raises(OSError, match="No space left"):
        spool.put("otlp", run_batch())
    assert list(spool.folder.rglob("*.part")) == []


def test_a_batch_is_kept_whole_or_not_at_all(spool, monkeypatch):
    full_disk(monkeypatch, after=2)
    with pytest.raises(OSError, match="No space left"):
        spool.put("otlp", run_batch())
    assert spool.waiting() == []
