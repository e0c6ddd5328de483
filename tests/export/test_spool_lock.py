"""Who is at a file of the spool: one at a time, until he lets go or is gone; and what he leaves when he is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_observability.export.signals import METRICS, TRACES
from batch_observability.export.spool import Spool
from batch_observability.export.spool_file import Entry
from tests.export.batches import run_batch
from tests.live import wait_until

REPOSITORY = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from batch_observability.export.spool_file import Entry
entry = Entry.take(Path(sys.argv[1]))
if entry is not None:
    entry.begin()
print("taken" if entry else "not mine", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool", 256, 168)


@pytest.fixture
def files(spool):
    """A file of traces and one of metrics, that nobody is at."""
    entries = spool.put(run_batch(), {"otlp": frozenset({TRACES, METRICS})}, None)
    for entry in entries:
        entry.release()
    return {entry.signal: entry.path for entry in entries}


@pytest.fixture
def holder():
    """Return a function that lets another process take a file and begin to send it; returns it and what it said."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_taker_gets_nothing_until_the_first_lets_go(files):
    first = Entry.take(files[TRACES])
    assert Entry.take(files[TRACES]) is None
    first.release()
    second = Entry.take(files[TRACES])
    assert second is not None
    second.release()


def test_what_is_put_is_held_by_whoever_put_it(spool):
    (entry,) = spool.put(run_batch(), {"otlp": frozenset({TRACES})}, None)
    assert Entry.take(entry.path) is None
    entry.release()
    assert Entry.take(entry.path) is not None


def test_another_process_gets_nothing_either(files, holder):
    entry = Entry.take(files[TRACES])
    assert holder(files[TRACES])[1] == "not mine"
    entry.release()
    assert holder(files[TRACES])[1] == "taken"
    assert Entry.take(files[TRACES]) is None


def test_the_lock_of_a_killed_process_is_free_and_its_metrics_are_known_as_half_sent(files, holder):
    process, said = holder(files[METRICS])
    assert said == "taken"
    (sending,) = files[METRICS].parent.glob("*.sending")
    assert Entry.take(sending) is None
    process.kill()
    process.wait()
    entry = wait_until(lambda: Entry.take(sending), "the lock is free", 5, every=0.02)
    assert entry.half_sent
    assert (entry.signal, entry.stem) == (METRICS, files[METRICS].name.removesuffix(".metrics.jsonl"))
    entry.release()


def test_spans_that_were_begun_are_as_good_as_new_for_they_have_ids(files, holder):
    process, _ = holder(files[TRACES])
    process.kill()
    process.wait()
    entry = wait_until(lambda: Entry.take(files[TRACES]), "the lock is free", 5, every=0.02)
    assert not entry.half_sent
    entry.release()


def test_metrics_that_were_refused_are_not_half_sent(files):
    entry = Entry.take(files[METRICS])
    entry.begin()
    assert not files[METRICS].exists()
    assert entry.half_sent
    entry.refused()
    assert not entry.half_sent
    assert entry.path == files[METRICS]
    assert Entry.take(files[METRICS]) is None
    entry.release()
    assert Entry.take(files[METRICS]) is not None


def test_what_was_removed_or_renamed_while_it_was_opened_is_not_taken(files, monkeypatch):
    """Another process sends the file, or begins to, between our opening it and our lock."""
    original = os.open

    def then(act):
        def opened(path, *arguments):
            descriptor = original(path, *arguments)
            act(Path(path))
            return descriptor

        monkeypatch.setattr(os, "open", opened)

    then(lambda path: path.rename(f"{path}.sending"))
    assert Entry.take(files[METRICS]) is None
    then(Path.unlink)
    assert Entry.take(files[TRACES]) is None


def test_letting_go_closes_the_file_and_twice_does_no_harm(files):
    before = set(Path("/proc/self/fd").iterdir())
    for path in files.values():
        entry = Entry.take(path)
        entry.release()
        entry.release()
        entry = Entry.take(path)
        entry.remove()
        entry.remove()
        assert Entry.take(path) is None
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_program_that_is_started_meanwhile_does_not_inherit_the_lock(files):
    entry = Entry.take(files[TRACES])
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        entry.release()
        assert Entry.take(files[TRACES]) is not None
    finally:
        process.kill()
        process.communicate()
