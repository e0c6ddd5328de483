"""Files that wait on disk: written whole and private, within bounds, and listed."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from batch_observability.export.signals import EVENTS, LOGS, METRICS, TRACES
from batch_observability.export.spool import CHANGE, LEDGER, Spool
from batch_observability.export.spool_file import Entry, UnreadableError, signal_of
from batch_observability.ledger.records import encode
from tests.export.batches import run_batch
from tests.ledger.runs import finished

REPOSITORY = Path(__file__).parents[2]
ALL = frozenset({TRACES, METRICS, LOGS, EVENTS})
ONLY_METRICS = frozenset({METRICS})
HOUR_NS = 3600 * 10**9
WRITER = """
import sys
from pathlib import Path
from batch_observability.export.spool import Spool
from tests.export.batches import run_batch
spool = Spool(Path(sys.argv[1]), 100, 1)
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    for entry in spool.put(run_batch(name=f"{sys.argv[2]}-{number}"), {"otlp": frozenset({"traces"})}, None):
        entry.release()
"""


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "state" / "spool", 256, 168)


def put(spool, *targets, takes=ALL, **values):
    """Put a batch there and let go of it; return its files."""
    entries = spool.put(run_batch(**values), dict.fromkeys(targets or ("otlp",), takes), None)
    for entry in entries:
        entry.release()
    return [entry.path for entry in entries]


def aged(path, hours):
    """Let a file have been put there so many hours ago."""
    old = path.with_name(f"{time.time_ns() - int(hours * HOUR_NS):020d}{path.name[20:]}")
    path.rename(old)
    return old


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def everything(spool):
    return sorted(path.name for path in spool.folder.rglob("*") if path.is_file())


# --- What is written ---------------------------------------------------------------------------------------------


def test_a_batch_is_one_document_on_a_line_for_each_signal(spool):
    entries = spool.put(run_batch(name="a name/with: odd; characters"), {"otlp": ALL}, None)
    assert {entry.signal for entry in entries} == ALL
    assert sorted(entry.path for entry in entries) == spool.paths("otlp")
    for entry in entries:
        assert entry.path.name.endswith(f"-a_name_with__odd__characters.{entry.signal}.jsonl")
        (line,) = entry.path.read_text(encoding="utf-8").splitlines()
        assert len(json.loads(line)) == 1


def test_a_target_gets_what_it_takes_and_the_ledger_its_change_with_one_name(spool):
    change = encode(finished())
    entries = spool.put(run_batch(), {"otlp": frozenset({LOGS}), "datadog": frozenset({EVENTS})}, change)
    assert {(entry.target, entry.signal) for entry in entries} == {
        (LEDGER, CHANGE),
        ("otlp", LOGS),
        ("datadog", EVENTS),
    }
    assert len({entry.stem for entry in entries}) == 1
    (waiting,) = spool.paths(LEDGER)
    assert json.loads(waiting.read_text("utf-8")) == json.loads(json.dumps(change))


def test_files_are_for_the_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        spool = Spool(tmp_path / "state" / "spool", 1, 1)
        paths = put(spool)
        spool.note("otlp", "the collector is away")
    finally:
        os.umask(before)
    assert {mode(path) for path in [*paths, tmp_path / "state/spool/otlp/reason.txt"]} == {0o600}
    assert {mode(tmp_path / "state" / part) for part in ("", "spool", "spool/otlp")} == {0o700}


def test_files_are_for_the_owner_also_where_the_umask_takes_too_much(tmp_path):
    before = os.umask(0o077)
    try:
        (path,) = put(Spool(tmp_path / "state" / "spool", 1, 1), takes=ONLY_METRICS)
    finally:
        os.umask(before)
    assert mode(path) == 0o600


def test_what_waits_is_given_oldest_first(spool):
    for number in range(3):
        put(spool, takes=ONLY_METRICS, name=f"n{number}")
    assert [path.name.partition("-")[2] for path in spool.paths("otlp")] == [
        "n0.metrics.jsonl",
        "n1.metrics.jsonl",
        "n2.metrics.jsonl",
    ]


def test_processes_write_at_once_and_no_document_is_lost_or_half(spool):
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
    names = {path.name.partition("-")[2].partition(".")[0] for path in spool.paths("otlp")}
    assert names == {f"{name}-{number}" for name in "ab" for number in range(20)}
    for path in spool.paths("otlp"):
        assert json.loads(path.read_text(encoding="utf-8"))
    assert list(spool.folder.rglob("*.part")) == []


def test_a_file_in_place_of_the_folder_is_an_os_error(tmp_path):
    (tmp_path / "spool").write_text("not a folder")
    with pytest.raises(OSError, match="spool"):
        put(Spool(tmp_path / "spool", 1, 1))


def full_disk(monkeypatch, after):
    """Let the disk be full after so many files."""
    original, count = os.fsync, iter(range(1000))

    def fsync(descriptor):
        if next(count) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("after", [0, 2, 4, 5])
def test_on_a_full_disk_a_batch_is_kept_whole_or_not_at_all(spool, monkeypatch, after):
    """Four files, the folder of each target: the last two are the folders' names."""
    before = set(Path("/proc/self/fd").iterdir())
    full_disk(monkeypatch, after)
    with pytest.raises(OSError, match="No space left"):
        spool.put(run_batch(), {"otlp": frozenset({TRACES, LOGS}), "datadog": frozenset({TRACES, METRICS})}, None)
    assert everything(spool) == []
    assert set(Path("/proc/self/fd").iterdir()) == before


# --- Bounds ------------------------------------------------------------------------------------------------------


def test_above_the_size_the_oldest_go_and_are_counted_by_file(tmp_path):
    spool = Spool(tmp_path / "spool", 1, 168)
    batch = run_batch().only(ONLY_METRICS)
    large = replace(batch, points=batch.points * 60)
    dropped = []
    for number in range(6):
        (entry,) = spool.put(replace(large, name=f"n{number}"), {"otlp": ONLY_METRICS}, None)
        dropped.append(dict(spool.make_room()))
        entry.release()
    sizes = [path.stat().st_size for path in spool.paths("otlp")]
    room = 1_000_000 // sizes[0]
    assert 1 < room < 6
    assert sum(sizes) <= 1_000_000
    assert dropped == [{}] * room + [{"spool_full": 1}] * (6 - room)
    assert [path.name.split("-")[1] for path in spool.paths("otlp")] == [
        f"n{n}.metrics.jsonl" for n in range(6 - room, 6)
    ]


def test_what_is_being_sent_is_not_dropped_however_large(tmp_path):
    spool = Spool(tmp_path / "spool", 1, 168)
    batch = run_batch().only(ONLY_METRICS)
    (entry,) = spool.put(replace(batch, points=batch.points * 400), {"otlp": ONLY_METRICS}, None)
    assert spool.make_room() == {}
    assert spool.paths("otlp") == [entry.path]
    entry.release()
    assert spool.make_room() == {"spool_full": 1}


def test_what_is_too_old_goes_and_is_counted(spool):
    old, young = put(spool, takes=frozenset({TRACES, METRICS}))
    aged(old, hours=168.1)
    kept = aged(young, hours=167.9)
    assert spool.make_room() == {"spool_age": 1}
    assert spool.paths("otlp") == [kept]


def test_spans_for_datadog_are_too_old_after_18_hours_and_nothing_else_is(spool):
    paths = [aged(path, 18.1) for path in put(spool, "otlp", "datadog")]
    paths += [aged(path, 17.9) for path in put(spool, "datadog", name="younger")]
    old = []
    for path in paths:
        entry = Entry.take(path)
        old += [(entry.target, entry.signal)] if entry.too_old else []
        entry.release()
    assert old == [("datadog", TRACES)]


def test_half_written_files_of_the_dead_go_after_an_hour_and_are_no_loss(spool):
    path = put(spool, takes=ONLY_METRICS)[0]
    young = path.rename(path.with_name(f"{path.name}.part"))
    assert spool.make_room() == {}
    assert young.exists()
    aged(young, hours=1.1)
    assert spool.make_room() == {}
    assert everything(spool) == []


def test_a_half_written_file_is_not_given(spool):
    path = put(spool, takes=ONLY_METRICS)[0]
    path.rename(path.with_name(f"{path.name}.part"))
    assert spool.paths("otlp") == []
    assert spool.status() == []


def test_what_cannot_be_used_goes_at_its_age_and_was_counted_before(spool):
    path = put(spool, takes=ONLY_METRICS)[0]
    Entry.take(path).set_aside()
    broken = path.with_name(f"{path.name}.broken")
    assert spool.make_room() == {}
    aged(broken, hours=169)
    link = broken.with_name(f"{time.time_ns() - 169 * HOUR_NS:020d}-link.traces.jsonl.broken")
    link.symlink_to("nowhere")
    assert spool.make_room() == {}
    assert list(spool.folder.rglob("*.broken*")) == []


def test_a_file_that_another_process_has_just_sent_is_no_error(spool, monkeypatch):
    paths = put(spool)
    for path in paths:
        path.unlink()
    monkeypatch.setattr(Spool, "_all", lambda self, target: paths)
    assert spool.make_room() == {}
    assert Entry.take(paths[0]) is None


# --- What is there that is none of ours ---------------------------------------------------------------------------


def test_names_of_foreign_files_are_ignored(spool):
    (mine,) = put(spool, takes=ONLY_METRICS)
    for name in ("README", "notes.jsonl", "1234.traces", ".hidden.jsonl", "reason.txt"):
        (mine.parent / name).write_text("{}")
    (spool.folder / "a-file").write_text("no target")
    assert spool.paths("otlp") == [mine]
    assert spool.targets() == ["otlp"]
    (waiting,) = spool.status()
    assert waiting.files == {METRICS: 1}
    assert waiting.size == mine.stat().st_size


def in_place(spool, make):
    """Put something else where a file of ours would be."""
    (path,) = put(spool, takes=frozenset({TRACES}))
    path.unlink()
    make(path)
    return path


def elsewhere(path):
    secret = path.parents[3] / "secret"
    secret.write_text("{}")
    path.symlink_to(secret)


@pytest.mark.parametrize(
    ("make", "why"),
    [(elsewhere, "cannot be read: Too many levels"), (Path.mkdir, "is no file"), (os.mkfifo, "is no file")],
)
def test_what_is_no_file_is_not_opened_but_set_aside_and_named_once(spool, make, why):
    path = in_place(spool, make)
    with pytest.raises(UnreadableError, match=f"{path} {why}"):
        Entry.take(path)
    assert spool.paths("otlp") == []
    assert os.path.lexists(f"{path}.broken")
    assert spool.make_room() == {}
    assert Entry.take(path) is None


def test_a_file_that_cannot_be_opened_just_now_stays(spool, monkeypatch):
    (path,) = put(spool, takes=ONLY_METRICS)

    def busy(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", busy)
    assert Entry.take(path) is None
    monkeypatch.undo()
    assert spool.paths("otlp") == [path]


# --- What is said of it ------------------------------------------------------------------------------------------


def test_status_says_what_waits_since_when_and_why(spool):
    files = put(spool, "otlp", takes=frozenset({TRACES, METRICS}), name="n1")
    files += put(spool, "otlp", takes=frozenset({TRACES}), name="n2")
    oldest = aged(files[0], hours=2)
    Entry.take(next(path for path in files[1:] if signal_of(path) == TRACES)).set_aside()
    spool.note("otlp", "the collector is away \ud800")
    (waiting,) = spool.status()
    assert waiting.target == "otlp"
    assert sum(waiting.files.values()) == 2
    assert waiting.broken == 1
    assert waiting.size == sum(path.stat().st_size for path in spool.folder.glob("otlp/0*"))
    assert waiting.since_ns == int(oldest.name[:20])
    assert waiting.reason == "the collector is away ?"
    spool.note("otlp", "")
    assert spool.status()[0].reason == ""


def test_where_nothing_was_ever_kept_nothing_waits(spool):
    assert spool.status() == []
    assert spool.targets() == []
    assert spool.paths("otlp") == []
    assert spool.make_room() == {}
    spool.note("otlp", "no folder to say it in")


def test_a_change_of_a_run_is_found_by_the_runs_id(spool):
    for entry in spool.put(run_batch(name="run-1"), {}, encode(finished())):
        entry.release()
    assert spool.holds_change_of("run-1")
    assert not spool.holds_change_of("run-11")
    assert not spool.holds_change_of("run")


def test_siblings_are_the_other_files_of_the_batch(spool):
    entries = spool.put(run_batch(name="a.run"), {"otlp": ALL, "datadog": ALL}, encode(finished()))
    put(spool, name="a.run")
    change = next(entry for entry in entries if entry.signal == CHANGE)
    next(entry for entry in entries if entry.signal == METRICS).begin()
    assert sorted(spool.siblings(change)) == sorted(entry.path for entry in entries if entry is not change)


# --- Adoption ----------------------------------------------------------------------------------------------------


def test_what_was_kept_without_a_backend_waits_for_those_that_there_are_now(spool):
    put(spool, "spool", name="old")
    spool.adopt({"otlp": frozenset({TRACES, METRICS, LOGS}), "datadog": frozenset({TRACES, METRICS, EVENTS})})
    assert spool.paths("spool") == []
    assert [signal_of(path) for path in spool.paths("otlp")] == [LOGS, METRICS, TRACES]
    assert [signal_of(path) for path in spool.paths("datadog")] == [EVENTS, METRICS, TRACES]
    assert {mode(path) for path in [*spool.paths("otlp"), spool.folder / "otlp"]} == {0o600, 0o700}


def test_what_somebody_is_writing_or_adopting_is_left_to_him(spool):
    entries = spool.put(run_batch(), {"spool": ONLY_METRICS}, None)
    spool.adopt({"otlp": ONLY_METRICS})
    assert spool.paths("spool") == [entries[0].path]
    assert spool.paths("otlp") == []


def test_an_adoption_that_was_cut_short_is_finished(spool):
    (path,) = put(spool, "spool", takes=ONLY_METRICS)
    (spool.folder / "otlp").mkdir()
    os.link(path, spool.folder / "otlp" / path.name)
    spool.adopt({"otlp": ONLY_METRICS, "datadog": ONLY_METRICS})
    assert spool.paths("spool") == []
    assert len(spool.paths("otlp")) == len(spool.paths("datadog")) == 1


def test_what_cannot_be_adopted_does_not_keep_the_rest(spool):
    odd = put(spool, "spool", takes=ONLY_METRICS)[0]
    odd.unlink()
    odd.mkdir()
    put(spool, "spool", takes=ONLY_METRICS)
    spool.adopt({"otlp": ONLY_METRICS})
    assert len(spool.paths("otlp")) == 1
    assert odd.with_name(f"{odd.name}.broken").is_dir()


def test_where_a_target_has_no_room_it_stays_where_it_was(spool):
    (path,) = put(spool, "spool", takes=ONLY_METRICS)
    (spool.folder / "otlp").write_text("in the way")
    spool.adopt({"otlp": ONLY_METRICS})
    assert spool.paths("spool") == [path]
    Entry.take(path).release()
