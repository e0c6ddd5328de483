"""The journal of an open run: who holds it, who takes it over, and what it says of the process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading

import pytest

from batch_observability.sidecar import journal
from batch_observability.sidecar.journal import Entry, Journal, run_ids
from batch_observability.sidecar.observation import restore
from batch_observability.usage import birth, host_name
from tests.sidecar.frames import at, context

GONE = 2**22 + 1  # above the highest pid that Linux gives
HOLDS = """
import sys
from pathlib import Path
from batch_observability.sidecar.journal import Entry, Journal
journal = Journal(Path(sys.argv[1]), "run-1")
journal.keep(Entry({"rows": 1}, 1, "", "", True, False))
print("held", flush=True)
sys.stdin.read()
"""


def entry(**values):
    known = {
        "observation": {"rows": {"1.1": {"read": 5}}},
        "pid": os.getpid(),
        "birth": birth(os.getpid()),
        "host": host_name(),
        "start_told": True,
        "paused": False,
    }
    return Entry(**{**known, **values})


@pytest.fixture
def mine(state):
    return Journal(state, "run-1")


@pytest.fixture
def others(state):
    return Journal(state, "run-1")


@pytest.fixture
def sidecar(state):
    """Return a process that keeps the journal of run-1."""
    popen = subprocess.Popen([sys.executable, "-c", HOLDS, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert popen.stdout.readline() == b"held\n"
    yield popen
    popen.kill()
    popen.communicate()


# --- Held, taken over, removed --------------------------------------------------------------------------------------


def test_there_is_nothing_to_take_where_nobody_wrote(mine, state):
    assert mine.take() is None
    assert list(run_ids(state)) == []


def test_a_journal_is_its_sidecars_while_that_lives_and_anybodys_when_it_is_killed(sidecar, mine, state):
    assert list(run_ids(state)) == ["run-1"]
    assert mine.take() is None
    sidecar.kill()
    sidecar.wait()
    assert mine.take() == Entry({"rows": 1}, 1, "", "", True, False)


def test_who_lets_it_go_leaves_what_it_knew(mine, others):
    mine.keep(entry())
    mine.keep(entry(paused=True))
    assert others.take() is None
    mine.release()
    assert others.take() == entry(paused=True)
    assert mine.take() is None


def test_who_has_taken_it_over_keeps_it_through_all_that_it_writes(mine, others, state):
    mine.keep(entry())
    mine.release()
    assert others.take()
    for _ in range(3):
        others.keep(entry(start_told=False))
        assert mine.take() is None
    others.release()
    assert mine.take() == entry(start_told=False)
    mine.remove()
    assert list(run_ids(state)) == []
    assert others.take() is None


def test_who_is_patient_gets_what_somebody_is_only_looking_at(mine, others):
    mine.keep(entry())
    looked = threading.Timer(0.2, mine.release)
    looked.start()
    try:
        assert others.take(20.0) == entry()
    finally:
        looked.join()


def test_only_who_holds_it_removes_it(mine, others, state):
    mine.keep(entry())
    others.remove()
    assert list(run_ids(state)) == ["run-1"]


def test_a_journal_that_is_replaced_while_it_is_taken_is_not_taken(mine, others, monkeypatch):
    mine.keep(entry())
    mine.release()
    flock = fcntl.flock

    def replace(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        mine.keep(entry(pid=7))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace)
    assert others.take() is None
    mine.release()
    assert others.take().pid == 7


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", "{}", '{"pid": 1}', '{"unknown": 1}', "\x00\x00", '"\\ud800"']
)
def test_what_is_no_journal_is_an_error_that_readers_know_and_can_be_written_anew(mine, state, text):
    mine.path.parent.mkdir(parents=True)
    mine.path.write_text(text)
    with pytest.raises((ValueError, KeyError, TypeError)):
        mine.take()
    mine.keep(entry())
    mine.release()
    assert mine.take() == entry()


def test_only_its_owner_reads_it(mine, state):
    before = os.umask(0)
    try:
        mine.keep(entry())
    finally:
        os.umask(before)
    assert mine.path.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (state, mine.path.parent)} == {0o700}


def test_a_disk_that_is_full_leaves_the_last_one_and_no_half_one_and_is_told_once(mine, others, monkeypatch, caplog):
    mine.keep(entry())

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(json, "dump", full)
        mine.keep(entry(pid=7))
        mine.keep(entry(pid=8))
    assert [path.name for path in mine.path.parent.iterdir()] == ["run-1.json"]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == f"{mine.path} cannot be written: [Errno 28] No space left on device"
    assert others.take() is None
    mine.release()
    assert others.take() == entry()


def test_what_was_not_written_is_written_when_there_is_room_again(mine, others, state):
    state.mkdir()
    (state / "runs").write_text("a file in place of the folder")
    mine.keep(entry())
    (state / "runs").unlink()
    mine.keep(entry())
    mine.release()
    assert others.take() == entry()


def test_what_pauses_survives_a_power_loss(mine, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    mine.keep(entry())
    assert synced == []
    mine.keep(entry(paused=True))
    assert len(synced) == 1


def test_a_partial_file_is_no_run(mine, state):
    mine.keep(entry())
    mine.path.with_name("run-2.json.77.part").write_text("{")
    assert list(run_ids(state)) == ["run-1"]


# --- The process ----------------------------------------------------------------------------------------------------


def test_a_process_that_lives_is_not_gone():
    assert not entry().process_gone


def test_a_process_is_gone_when_it_is_a_zombie_and_when_it_is_reaped():
    popen = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    its = entry(pid=popen.pid, birth=birth(popen.pid))
    assert its.birth
    assert not its.process_gone
    popen.stdin.close()
    os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    assert its.process_gone
    popen.wait()
    assert its.process_gone


@pytest.mark.parametrize(
    ("values", "gone"),
    [
        ({"pid": GONE}, True),
        # The id is somebody else's by now.
        ({"birth": "1"}, True),
        # Where the system does not tell when it was born, the id is all there is.
        ({"birth": ""}, False),
        ({"pid": GONE, "birth": ""}, True),
        # It has no process for now, or none that could be seen from here.
        ({"pid": GONE, "paused": True}, False),
        ({"pid": GONE, "host": "another-host"}, False),
    ],
)
def test_whether_a_process_is_gone(values, gone):
    assert entry(**values).process_gone is gone


@pytest.mark.parametrize(("born", "gone"), [(None, False), ("1", True)])
def test_a_process_of_somebody_else_is_told_by_its_birth(monkeypatch, born, gone):
    def not_permitted(pid, number):
        raise PermissionError

    monkeypatch.setattr(journal.os, "kill", not_permitted)
    assert entry(**({"birth": born} if born else {})).process_gone is gone


# --- Of a run whose sidecar has not looked yet ----------------------------------------------------------------------


def test_a_run_has_a_journal_before_it_has_a_sidecar(mine, state):
    run = context(run_id="run-1", linked_spans=((1, 2),))
    journal.begin(state, run, at(0), 10)
    assert mine.path.stat().st_mode & 0o777 == 0o600
    begun = mine.take()
    assert (begun.pid, begun.birth, begun.host) == (os.getpid(), birth(os.getpid()), host_name())
    assert not begun.start_told
    known = restore(begun.observation)
    assert (known.context, known.max_stages, known.phase_began_ns) == (run, 10, at(0))
    assert (known.phase, known.stages, known.total_rows) == (1, {}, None)


def test_what_is_known_of_a_run_already_is_left_alone_when_another_sidecar_begins(mine, others, state):
    mine.keep(entry(paused=True))
    for run in (context(run_id="run-1"), context(run_id="run-1", resumed=True)):
        journal.begin(state, run, at(9), 10)
    mine.release()
    assert others.take() == entry(paused=True)


def test_a_run_that_goes_on_from_another_host_has_no_journal_until_its_sidecar_knows_more(state):
    journal.begin(state, context(run_id="run-1", resumed=True), at(9), 10)
    assert list(run_ids(state)) == []
