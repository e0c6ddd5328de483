"""What waits in the spool is sent: what first, what not, and what becomes of what cannot be."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from batch_observability.export import otlp_json
from batch_observability.export import replay as replay_module
from batch_observability.export.replay import replay
from batch_observability.export.signals import EVENTS, LOGS, METRICS, TRACES
from batch_observability.export.spool import CHANGE, LEDGER, Spool
from batch_observability.export.spool_file import Entry, signal_of
from batch_observability.export.target import ExportError, taken_by
from batch_observability.ledger.records import encode
from batch_observability.ledger.store import Ledger
from tests.export.batches import run_batch
from tests.export.sender import waiting
from tests.export.worlds import delivery, dropped, failing, refusing
from tests.export.worlds import world as world  # noqa: PLC0414  (a fixture)
from tests.ledger.runs import finished, run, verdict
from tests.live import wait_until

ALL = frozenset({TRACES, METRICS, LOGS, EVENTS})
HOUR_NS = 3600 * 10**9


def spool_of(state):
    return Spool(state / "spool", 256, 168)


def keep(state, *targets, change=None, takes=ALL, **values):
    """Let a batch wait, as one whose sidecar is gone; return its files by target and signal."""
    targets = {target: takes & taken_by(target) for target in targets}
    entries = spool_of(state).put(run_batch(**values), targets, encode(change) if change else None)
    for entry in entries:
        entry.release()
    return {(entry.target, entry.signal): entry.path for entry in entries}


def aged(path, hours):
    old = path.with_name(f"{time.time_ns() - int(hours * HOUR_NS):020d}{path.name[20:]}")
    path.rename(old)
    return old


def outcome(state, run_id="run-1"):
    return Ledger(f"sqlite:///{state / 'ledger.db'}", 5).outcomes([run_id]).get(run_id)


def set_aside(state):
    return sorted(path.name for path in (state / "spool").glob("*/*.broken"))


# --- Order, time and bounds --------------------------------------------------------------------------------------


def test_the_oldest_goes_first_and_all_of_it_goes(world, tmp_path):
    backends = world(otlp=None)
    for number in range(4):
        keep(tmp_path, "otlp", name=f"n{number}", takes=frozenset({TRACES}))
    done = replay(delivery(tmp_path, "otlp"))
    assert backends["otlp"].names() == ["n0", "n1", "n2", "n3"]
    assert (done.sent, done.refused, done.dropped, done.complete) == ({"otlp": 4}, {}, {}, True)
    assert waiting(tmp_path) == []


def test_what_is_sent_is_what_was_kept(world, tmp_path):
    backends = world(datadog=None, otlp=None)
    batch = run_batch()
    for entry in spool_of(tmp_path).put(batch, {name: taken_by(name) for name in ("datadog", "otlp")}, None):
        entry.release()
    replay(delivery(tmp_path, "datadog", "otlp"))
    for name, backend in backends.items():
        assert backend.signals() == sorted(taken_by(name))
        for taken in backend.taken:
            assert replace(taken, name=batch.name) == batch.only(taken.signals)


def test_changes_of_the_ledger_go_before_signals(world, tmp_path):
    seen = []
    world(otlp=lambda _: seen.append(outcome(tmp_path)))
    keep(tmp_path, "otlp", change=finished())
    done = replay(delivery(tmp_path, "otlp"))
    assert seen == ["success"] * 3
    assert done.sent == {LEDGER: 1, "otlp": 3}
    assert waiting(tmp_path) == []


def test_a_target_that_is_not_chosen_is_not_sent_to(world, tmp_path):
    backends = world(otlp=None)
    keep(tmp_path, "datadog", "otlp")
    replay(delivery(tmp_path, "otlp"))
    assert waiting(tmp_path) == ["datadog.events", "datadog.metrics", "datadog.traces"]
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]


def test_without_a_backend_changes_of_the_ledger_go_all_the_same(tmp_path):
    keep(tmp_path, "spool", change=finished())
    assert replay(delivery(tmp_path, "spool")).sent == {LEDGER: 1}
    assert waiting(tmp_path) == ["spool.events", "spool.logs", "spool.metrics", "spool.traces"]
    assert outcome(tmp_path) == "success"


def test_once_there_is_a_backend_it_gets_what_was_kept_without_one(world, tmp_path):
    keep(tmp_path, "spool")
    backends = world(datadog=None, otlp=None)
    assert replay(delivery(tmp_path, "datadog", "otlp")).sent == {"datadog": 3, "otlp": 3}
    assert backends["datadog"].signals() == [EVENTS, METRICS, TRACES]
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert waiting(tmp_path) == []


def test_whoever_wants_the_spool_as_well_keeps_it(world, tmp_path):
    keep(tmp_path, "spool")
    world(otlp=None)
    assert replay(delivery(tmp_path, "otlp", "spool")).sent == {}
    assert len(waiting(tmp_path)) == 4


def test_after_its_time_nothing_more_is_begun(world, tmp_path):
    def slow(_):
        over = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > over, "the time is over", 5, every=0.01)

    backends = world(otlp=slow)
    for _ in range(3):
        keep(tmp_path, "otlp", takes=frozenset({TRACES}))
    done = replay(delivery(tmp_path, "otlp"), limit_s=0.2)
    assert not done.complete
    assert done.sent == {"otlp": 1}
    assert backends["otlp"].attempts == 1
    assert replay(delivery(tmp_path, "otlp"), limit_s=0).sent == {}
    assert waiting(tmp_path) == ["otlp.traces", "otlp.traces"]


def test_spans_that_datadog_no_longer_takes_are_dropped_counted_and_that_is_told_at_once(world, tmp_path):
    backends = world(datadog=None, otlp=None)
    for path in keep(tmp_path, "datadog", "otlp", takes=frozenset({TRACES})).values():
        aged(path, hours=18.1)
    done = replay(delivery(tmp_path, "datadog", "otlp"))
    assert done.dropped == {"too_old": 1}
    assert backends["otlp"].signals() == [METRICS, TRACES]
    (told,) = backends["datadog"].taken
    assert [(point.metric.name, point.value, point.tags["reason"]) for point in told.points] == [
        ("batch_model.telemetry.dropped", 1, "too_old")
    ]
    assert waiting(tmp_path) == []


def test_what_is_older_than_the_bound_is_dropped_and_counted(world, tmp_path):
    backends = world(otlp=None)
    aged(keep(tmp_path, "otlp", takes=frozenset({LOGS}))["otlp", LOGS], hours=3)
    keep(tmp_path, "otlp", takes=frozenset({LOGS}))
    done = replay(delivery(tmp_path, "otlp", spool_max_hours=2))
    assert done.dropped == {"spool_age": 1}
    assert backends["otlp"].signals() == [LOGS, METRICS]


# --- Once, and not twice -----------------------------------------------------------------------------------------


def test_the_signals_of_a_run_that_somebody_else_told_are_removed(world, tmp_path):
    backends = world(otlp=None, datadog=None)
    of = run()
    own = delivery(tmp_path, "otlp", "datadog")
    own.ledger.apply(finished(of=of, token="somebody", outcome="killed"))
    files = keep(tmp_path, "otlp", "datadog", change=finished(of=of, token="gone"), name="run-1")
    path = files["otlp", METRICS]
    path.rename(f"{path}.sending")
    keep(tmp_path, "otlp", name="run-2", takes=frozenset({TRACES}))
    done = replay(own)
    assert done.untold == 1
    assert done.sent == {LEDGER: 1, "otlp": 1}
    assert backends["otlp"].names() == ["run-2"]
    assert backends["datadog"].attempts == 0
    assert waiting(tmp_path) == []
    assert outcome(tmp_path) == "killed"


def test_a_run_that_its_sidecar_closed_before_it_was_killed_is_told(world, tmp_path):
    backends = world(otlp=None)
    change = finished(token="the sidecar's")
    own = delivery(tmp_path, "otlp")
    own.ledger.apply(change)
    keep(tmp_path, "otlp", change=change)
    assert replay(own).untold == 0
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]


def test_signals_wait_while_somebody_else_asks_the_ledger_if_they_are_wanted(world, tmp_path):
    backends = world(otlp=None)
    files = keep(tmp_path, "otlp", change=finished())
    keep(tmp_path, "otlp", name="another", takes=frozenset({TRACES}))
    asking = Entry.take(files[LEDGER, CHANGE])
    replay(delivery(tmp_path, "otlp"))
    assert backends["otlp"].names() == ["another"]
    asking.release()
    replay(delivery(tmp_path, "otlp"))
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES, TRACES]


def test_what_somebody_else_is_sending_is_left_to_him(world, tmp_path):
    backends = world(otlp=None)
    entry = Entry.take(keep(tmp_path, "otlp")["otlp", METRICS])
    entry.begin()
    assert replay(delivery(tmp_path, "otlp")).sent == {"otlp": 2}
    assert backends["otlp"].signals() == [LOGS, TRACES]
    assert entry.path.exists()


def test_metrics_that_were_half_sent_are_dropped_counted_and_that_is_told_at_once(world, tmp_path):
    backends = world(otlp=None)
    path = keep(tmp_path, "otlp")["otlp", METRICS]
    path.rename(f"{path}.sending")
    done = replay(delivery(tmp_path, "otlp"))
    assert done.dropped == {"uncertain": 1}
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert [point.tags["reason"] for batch in backends["otlp"].taken for point in batch.points] == ["uncertain"]
    assert waiting(tmp_path) == []
    assert replay(delivery(tmp_path, "otlp")).dropped == {}


def test_metrics_that_may_have_arrived_are_dropped_and_counted_once(world, tmp_path):
    backends = world(otlp=failing(ExportError({METRICS: "no answer"}, uncertain=True), METRICS, times=1))
    keep(tmp_path, "otlp")
    done = replay(delivery(tmp_path, "otlp"))
    assert done.dropped == {"uncertain": 1}
    assert done.refused == {"otlp": "no answer"}
    assert dropped(tmp_path) == {"otlp": [("uncertain", 1)]}
    assert replay(delivery(tmp_path, "otlp")).dropped == {}
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]


# --- Who refuses -------------------------------------------------------------------------------------------------


def poison(*names):
    def fault(batch):
        if batch.name.partition("-")[2] in names:
            raise ExportError({TRACES: "400 Bad Request"})

    return fault


def test_one_file_that_a_target_refuses_does_not_keep_the_others(world, tmp_path):
    backends = world(otlp=poison("n0", "n1", "n3", "n4"))
    for number in range(6):
        keep(tmp_path, "otlp", name=f"n{number}", takes=frozenset({TRACES}))
    done = replay(delivery(tmp_path, "otlp"))
    assert backends["otlp"].names() == ["n2", "n5"]
    assert done.refused == {"otlp": "400 Bad Request"}
    assert waiting(tmp_path) == ["otlp.traces"] * 4
    (status,) = spool_of(tmp_path).status()
    assert status.reason == "400 Bad Request"


def test_a_target_that_is_away_is_asked_three_times_and_the_other_gets_all(world, tmp_path):
    backends = world(datadog=refusing(TRACES), otlp=None)
    for _ in range(5):
        keep(tmp_path, "datadog", "otlp", takes=frozenset({TRACES}))
    done = replay(delivery(tmp_path, "datadog", "otlp"))
    assert backends["datadog"].attempts == 3
    assert done.sent == {"otlp": 5}
    assert done.refused == {"datadog": "traces are refused"}
    assert waiting(tmp_path) == ["datadog.traces"] * 5


def test_metrics_that_are_refused_are_tried_again_later(world, tmp_path):
    backends = world(otlp=refusing(METRICS, times=1))
    keep(tmp_path, "otlp", takes=frozenset({METRICS}))
    assert replay(delivery(tmp_path, "otlp")).refused
    assert [path.suffix for path in spool_of(tmp_path).paths("otlp")] == [".jsonl"]
    assert replay(delivery(tmp_path, "otlp")).sent == {"otlp": 1}
    assert backends["otlp"].signals() == [METRICS]
    assert spool_of(tmp_path).status() == []


def test_while_the_ledger_is_away_signals_are_sent_and_changes_wait(world, tmp_path):
    backends = world(otlp=None)
    (tmp_path / "ledger.db").mkdir()
    keep(tmp_path, "otlp", change=finished())
    own = delivery(tmp_path, "otlp")
    done = replay(own)
    assert "is a folder" in done.refused[LEDGER]
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert waiting(tmp_path) == ["ledger.change"]
    assert own.spool.status()[0].reason == done.refused[LEDGER]
    (tmp_path / "ledger.db").rmdir()
    assert replay(delivery(tmp_path, "otlp")).sent == {LEDGER: 1}
    assert outcome(tmp_path) == "success"


def test_a_ledger_that_is_garbage_is_not_asked_for_each_change(world, tmp_path, monkeypatch):
    (tmp_path / "ledger.db").write_bytes(b"no database at all\n" * 1000)
    for _ in range(9):
        keep(tmp_path, change=finished())
    own, asked = delivery(tmp_path, "spool"), []
    original = own.ledger.apply_all
    monkeypatch.setattr(own.ledger, "apply_all", lambda changes: asked.append(changes) or original(changes))
    assert "not a database" in replay(own).refused[LEDGER]
    assert len(asked) <= 4
    assert waiting(tmp_path) == ["ledger.change"] * 9


def test_a_change_that_the_ledger_refuses_does_not_keep_the_others(tmp_path):
    """Nobody of ours writes such a verdict; a later version, or a person, may."""
    keep(tmp_path, change=finished("run-1"))
    bad = keep(tmp_path, change=verdict(run_id=""))[LEDGER, CHANGE]
    keep(tmp_path, change=finished("run-2"))
    done = replay(delivery(tmp_path, "spool"))
    assert done.sent == {LEDGER: 2}
    assert "names neither" in done.refused[LEDGER]
    assert [outcome(tmp_path, name) for name in ("run-1", "run-2")] == ["success"] * 2
    assert spool_of(tmp_path).paths(LEDGER) == [bad]


def test_many_changes_go_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(replay_module, "_CHANGES_AT_ONCE", 3)
    for number in range(7):
        keep(tmp_path, change=finished(f"run-{number}"))
    assert replay(delivery(tmp_path, "spool")).sent == {LEDGER: 7}
    assert {outcome(tmp_path, f"run-{number}") for number in range(7)} == {"success"}


# --- What cannot be used -----------------------------------------------------------------------------------------


def small(signal):
    """Return the bytes of a small file of this signal."""
    batch = run_batch()
    run_span, *_ = batch.spans
    batch = replace(batch, spans=(replace(run_span, events=(), links=(), attributes={}),), points=batch.points[:1])
    if signal == CHANGE:
        document = encode(replace(finished(), stages=(), measurements=()))
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"
    return json.dumps(otlp_json.encode(batch, time.time_ns())[signal], separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("signal", [TRACES, METRICS, LOGS, EVENTS, CHANGE])
def test_of_files_that_are_cut_at_any_byte_the_whole_ones_are_sent_and_the_others_named_once(world, tmp_path, signal):
    target = {EVENTS: "datadog", CHANGE: LEDGER}.get(signal, "otlp")
    backends = world(otlp=None, datadog=None)
    folder = tmp_path / "spool" / target
    folder.mkdir(parents=True)
    data = small(signal)
    now_ns = time.time_ns()
    for size in range(len(data) + 1):
        (folder / f"{now_ns:020d}-{size:06d}.{signal}.jsonl").write_bytes(data[:size])
    own = delivery(tmp_path, "otlp", "datadog")
    done = replay(own)
    # The last byte is the end of the line.
    told_of_dropped = 0 if target == LEDGER else 1
    assert done.sent[target] == 2 + told_of_dropped
    assert len(done.unreadable) == len(set(done.unreadable)) == len(data) - 1
    assert done.dropped == {"unreadable": len(data) - 1}
    assert len(set_aside(tmp_path)) == len(data) - 1
    assert spool_of(tmp_path).paths(target) == []
    assert done.complete
    assert {name for name in backends["otlp"].names() if name.isdecimal()} <= {
        f"{len(data) - 1:06d}",
        f"{len(data):06d}",
    }
    again = replay(own)
    assert (again.sent, again.unreadable, again.dropped, again.refused) == ({}, [], {}, {})


GARBAGE = {
    "empty": b"",
    "blank": b"\n\n  \n",
    "nul": b"\0" * 5000,
    "binary": bytes(range(256)) * 20,
    "text": b"Traceback (most recent call last):\n  File\n",
    "null": b"null\n",
    "number": b"17",
    "list": b"[]",
    "object": b"{}",
    "text in JSON": b'"resourceSpans"',
    "deep": b"[" * 100_000,
    "deep object": b'{"resourceSpans":' * 50_000,
    "large number": b'{"resourceSpans": [{"scopeSpans": ' + b"9" * 5000 + b"}]}",
    "of another kind": b'{"resourceMetrics": []}',
    "no list": b'{"resourceSpans": {"resource": 1}, "kind": 7}',
    "UTF-16": '{"resourceSpans": [], "resourceMetrics": []}'.encode("utf-16"),
    "half a character": b'{"resourceSpans": [{"resource": "\xc3"}]}',
}


@pytest.mark.parametrize("target", ["otlp", LEDGER])
def test_garbage_is_set_aside_named_once_and_does_not_keep_the_rest(world, tmp_path, target):
    backends = world(otlp=None)
    signal = CHANGE if target == LEDGER else TRACES
    keep(tmp_path, "otlp", change=finished(), takes=frozenset({TRACES}))
    paths = []
    for number, data in enumerate(GARBAGE.values()):
        path = tmp_path / "spool" / target / f"{number + time.time_ns() - HOUR_NS:020d}-{number}.{signal}.jsonl"
        path.write_bytes(data)
        paths.append(path)
    own = delivery(tmp_path, "otlp")
    done = replay(own)
    assert dict.fromkeys(GARBAGE, 1) == {
        name: sum(line.startswith(f"{path} ") for line in done.unreadable)
        for name, path in zip(GARBAGE, paths, strict=True)
    }
    assert len(done.unreadable) == len(GARBAGE)
    assert not [line for line in done.unreadable if "\n" in line or len(line) > 400]
    assert TRACES in backends["otlp"].signals()
    assert outcome(tmp_path) == "success"
    assert set_aside(tmp_path) == sorted(f"{path.name}.broken" for path in paths)
    assert replay(own).unreadable == []


def test_of_a_file_with_some_lines_that_are_none_the_others_are_sent(world, tmp_path):
    backends = world(otlp=None)
    path = keep(tmp_path, "otlp", takes=frozenset({TRACES}))["otlp", TRACES]
    path.write_bytes(path.read_bytes() + b'{"resourceSp\n\n' + path.read_bytes())
    done = replay(delivery(tmp_path, "otlp"))
    assert len(next(batch for batch in backends["otlp"].taken if batch.spans).spans) == 6
    assert done.unreadable == [f"{path} has 1 lines that are no JSON; they are skipped"]
    assert done.dropped == {"unreadable": 1}
    assert waiting(tmp_path) == []


def test_names_that_are_no_signal_are_set_aside(world, tmp_path):
    world(otlp=None)
    path = keep(tmp_path, "otlp", takes=frozenset({TRACES}))["otlp", TRACES]
    for name in (f"{time.time_ns():020d}.jsonl", f"{time.time_ns():020d}-x.profiles.jsonl"):
        path.with_name(name).write_bytes(path.read_bytes())
    done = replay(delivery(tmp_path, "otlp"))
    assert len(done.unreadable) == 2
    assert done.sent["otlp"] >= 1
    assert [signal_of(one) for one in spool_of(tmp_path).paths("otlp")] == []


def test_a_folder_or_a_link_in_place_of_a_file_does_not_keep_the_rest(world, tmp_path):
    backends = world(otlp=None)
    files = keep(tmp_path, "otlp", change=finished())
    secret = tmp_path / "secret"
    secret.write_bytes(files["otlp", TRACES].read_bytes())
    for path in (files["otlp", TRACES], files[LEDGER, CHANGE]):
        path.unlink()
    files["otlp", TRACES].symlink_to(secret)
    files[LEDGER, CHANGE].mkdir()
    keep(tmp_path, "otlp", change=finished("run-2"), takes=frozenset({TRACES}), name="second")
    own = delivery(tmp_path, "otlp")
    done = replay(own)
    assert sorted(line.partition(" ")[2] for line in done.unreadable) == [
        "cannot be read: Too many levels of symbolic links",
        "is no file",
    ]
    assert "second" in backends["otlp"].names()
    assert backends["otlp"].signals().count(TRACES) == 1
    assert outcome(tmp_path, "run-2") == "success"
    assert replay(own).unreadable == []
    assert secret.exists()
