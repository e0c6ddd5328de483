"""A batch on its way: on disk first, then every target within its time and again for a while, and a report."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
import time
from dataclasses import replace

import pytest

from batch_observability.config import Settings
from batch_observability.export import deliver
from batch_observability.export.signals import EVENTS, LOGS, METRICS, TRACES
from batch_observability.export.spool_file import Entry
from batch_observability.export.target import ExportError
from tests.export.batches import run_batch
from tests.export.sender import Order, waiting
from tests.export.worlds import delivery, dropped, failing, log_lines, refusing
from tests.export.worlds import world as world  # noqa: PLC0414  (a fixture)
from tests.live import wait_until

DATADOG = ["datadog.events", "datadog.metrics", "datadog.traces"]
AWAY = ExportError({TRACES: "the Agent is away"})


@pytest.fixture
def release():
    """Let go of those who wait for it, also when the test fails."""
    event = threading.Event()
    yield event
    event.set()


def test_all_is_on_disk_before_it_is_safe_and_only_then_sent(world, tmp_path):
    events = []
    world(datadog=lambda _: events.append("sent"))

    def safe(on_disk):
        events.append(f"safe: {on_disk}")
        assert waiting(tmp_path) == DATADOG
        assert not log_lines(tmp_path)

    report = delivery(tmp_path, "datadog").deliver(run_batch(), on_safe=safe)
    assert events == ["safe: True", "sent", "sent"]
    assert report.targets == {"datadog": ""}
    assert report.told
    assert report.on_disk
    assert waiting(tmp_path) == []
    assert len(log_lines(tmp_path)) == 1


def test_two_real_targets_at_once(agent, dogstatsd, dispatch, tmp_path):
    batch = run_batch()
    out = dispatch(
        Order(("datadog", "otlp"), (batch,), Settings(state_dir=str(tmp_path))),
        DD_TRACE_AGENT_URL=agent.apm_url,
        DD_DOGSTATSD_URL=dogstatsd.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url,
    )
    (result,) = out["results"]
    assert result["errors"] == {"datadog": "", "otlp": ""}
    assert result["safe"] == [*DATADOG, "otlp.logs", "otlp.metrics", "otlp.traces"]
    assert result["left"] == []
    wanted = f"{batch.spans[0].trace_id:032x}"
    wait_until(lambda: [s for s in agent.otlp_spans() if s["trace_id"] == wanted], "OTLP", 5, every=0.05)
    wait_until(lambda: [s for s in agent.spans() if s["trace_id"] == int(wanted[16:], 16)], "APM", 5, every=0.05)


# --- What a target does not take ---------------------------------------------------------------------------------


def test_what_one_target_does_not_take_waits_for_that_one_only(world, tmp_path, caplog):
    backends = world(datadog=refusing(TRACES), otlp=None)
    report = delivery(tmp_path, "datadog", "otlp").deliver(run_batch(name="a-run"))
    assert report.targets == {"datadog": "traces are refused", "otlp": ""}
    assert waiting(tmp_path) == ["datadog.traces"]
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert backends["datadog"].signals() == [EVENTS, METRICS]
    assert "a-run: traces are refused" in caplog.text
    assert [(one.target, one.reason) for one in delivery(tmp_path, "otlp").spool.status()] == [
        ("datadog", "traces are refused")
    ]


def test_each_reason_of_a_target_is_reported(world, tmp_path):
    def fault(batch):
        refusing(METRICS)(batch)
        refusing(TRACES)(batch)

    world(otlp=fault)
    report = delivery(tmp_path, "otlp").deliver(run_batch())
    assert report.targets == {"otlp": "metrics are refused; traces are refused"}
    assert waiting(tmp_path) == ["otlp.metrics", "otlp.traces"]


def test_an_exception_of_a_target_keeps_all_and_is_reported(world, tmp_path):
    world(datadog=failing(RuntimeError("surprise")))
    report = delivery(tmp_path, "datadog").deliver(run_batch())
    assert report.targets == {"datadog": "RuntimeError: surprise"}
    assert waiting(tmp_path) == DATADOG


def test_what_waits_after_a_failure_is_free_for_others(world, tmp_path):
    world(datadog=failing(AWAY))
    own = delivery(tmp_path, "datadog", "spool")
    own.deliver(run_batch())
    entries = [Entry.take(path) for target in ("datadog", "spool") for path in own.spool.paths(target)]
    assert len(entries) == 7
    assert all(entries)


def test_what_failed_is_tried_again_within_the_patience_and_the_rest_is_not(world, tmp_path, monkeypatch):
    monkeypatch.setattr(deliver, "_FIRST_WAIT_S", 0.01)
    backends = world(datadog=refusing(TRACES, times=3), otlp=None)
    report = delivery(tmp_path, "datadog", "otlp", patience_s=30).deliver(run_batch())
    assert report.targets == {"datadog": "", "otlp": ""}
    assert backends["datadog"].attempts == 1 + 4
    assert backends["otlp"].attempts == 3
    assert waiting(tmp_path) == []
    assert delivery(tmp_path, "otlp").spool.status() == []


def test_the_time_between_attempts_doubles_until_the_patience_is_over(world, tmp_path, monkeypatch):
    monkeypatch.setattr(deliver, "_FIRST_WAIT_S", 0.1)
    times = []

    def fault(_):
        times.append(time.monotonic())
        raise AWAY

    world(datadog=fault)
    report = delivery(tmp_path, "datadog", patience_s=1).deliver(run_batch().only(frozenset({TRACES})))
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert report.targets == {"datadog": "the Agent is away"}
    assert waiting(tmp_path) == ["datadog.traces"]
    # The last wait ends with the patience.
    assert len(waits) in (2, 3, 4)
    assert all(wait >= 0.1 * 2**number for number, wait in enumerate(waits[:-1]))


def test_the_patience_is_retry_for_unless_it_is_said(tmp_path):
    settings = Settings(state_dir=str(tmp_path), retry_for=12.5)
    assert deliver.Delivery(settings, deliver.Choice((), ()))._patience_s == 12.5


def test_a_target_is_made_once(world, tmp_path):
    backends = world(datadog=None)
    both = delivery(tmp_path, "datadog")
    both.deliver(run_batch())
    both.deliver(run_batch())
    assert len(backends["datadog"].taken) == 4


def test_signals_that_a_batch_lacks_are_not_sent_and_say_nothing_of_the_target(world, tmp_path):
    backends = world(datadog=failing(AWAY))
    own = delivery(tmp_path, "datadog")
    own.deliver(run_batch())
    attempts = backends["datadog"].attempts
    own.deliver(run_batch().only(frozenset({LOGS})))
    assert backends["datadog"].attempts == attempts
    assert own.spool.status()[0].reason == "the Agent is away"


def test_without_its_packages_a_target_that_was_asked_for_keeps_all_and_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datadog.dogstatsd", None)
    monkeypatch.setitem(sys.modules, "ddtrace.trace", None)
    report = delivery(tmp_path, "datadog").deliver(run_batch())
    assert waiting(tmp_path) == DATADOG
    assert report.targets["datadog"].startswith("import of datadog.dogstatsd")
    assert report.targets["datadog"].endswith("pip install 'airflow-batch-observability[datadog]'")


# --- A target that does not answer -------------------------------------------------------------------------------


def test_a_target_that_does_not_answer_has_export_timeout_and_keeps_all(world, tmp_path, release):
    world(datadog=lambda _: release.wait())
    report = delivery(tmp_path, "datadog", export_timeout=0.1).deliver(run_batch())
    assert report.targets == {"datadog": "datadog did not answer within 0.1 s"}
    assert waiting(tmp_path) == DATADOG
    release.set()
    wait_until(lambda: waiting(tmp_path) == [], "the late target has taken it", 5, every=0.01)


def test_two_targets_that_do_not_answer_have_export_timeout_together(world, tmp_path, release):
    world(datadog=lambda _: release.wait(), otlp=lambda _: release.wait())
    began = time.monotonic()
    delivery(tmp_path, "datadog", "otlp", export_timeout=1).deliver(run_batch())
    assert time.monotonic() - began < 1.8


@pytest.mark.parametrize("fault", [None, AWAY])
def test_whoever_hangs_keeps_his_files_until_the_attempt_has_ended(world, tmp_path, release, fault):
    def hang(_):
        release.wait()
        if fault:
            raise fault

    world(datadog=hang)
    own = delivery(tmp_path, "datadog", export_timeout=0.1)
    own.deliver(run_batch().only(frozenset({TRACES})))
    (path,) = own.spool.paths("datadog")
    assert Entry.take(path) is None
    release.set()
    if fault:
        entry = wait_until(lambda: Entry.take(path), "it lets go", 5, every=0.01)
        entry.release()
    else:
        wait_until(lambda: not path.exists(), "it has taken it", 5, every=0.01)


def test_one_group_that_hangs_is_told_though_another_of_the_target_has_arrived(world, tmp_path, release, monkeypatch):
    monkeypatch.setattr(deliver, "_FIRST_WAIT_S", 0.01)
    refuse = refusing(METRICS, times=1)

    def fault(batch):
        refuse(batch)
        if TRACES in batch.signals:
            release.wait()

    backends = world(datadog=fault)
    own = delivery(tmp_path, "datadog", export_timeout=0.5, patience_s=5)
    report = own.deliver(run_batch())
    assert backends["datadog"].signals() == [EVENTS, METRICS]
    assert report.targets == {"datadog": "datadog did not answer within 0.5 s"}
    assert own.spool.status()[0].reason == "datadog did not answer within 0.5 s"


def test_an_attempt_that_has_not_begun_in_time_keeps_its_files(world, tmp_path, monkeypatch):
    """The thread is so late that it starts when nobody waits for it any more."""
    world(datadog=None)
    own = delivery(tmp_path, "datadog", export_timeout=1e-9)
    gate, original = threading.Event(), own.attempt

    def late(sending):
        gate.wait()
        original(sending)

    monkeypatch.setattr(own, "attempt", late)
    own.deliver(run_batch().only(frozenset({TRACES})))
    (path,) = own.spool.paths("datadog")
    assert Entry.take(path) is None
    gate.set()
    wait_until(lambda: not path.exists(), "it has taken it", 5, every=0.01)


# --- What may have arrived ---------------------------------------------------------------------------------------


def test_metrics_that_may_have_arrived_are_dropped_and_counted_once(world, tmp_path, caplog):
    unsure = ExportError({METRICS: "no answer"}, uncertain=True)
    backends = world(otlp=failing(unsure, METRICS))
    own = delivery(tmp_path, "otlp", patience_s=0.1)
    report = own.deliver(run_batch())
    assert report.targets == {"otlp": "no answer"}
    assert backends["otlp"].attempts == 3
    assert waiting(tmp_path) == ["otlp.metrics"]
    assert dropped(tmp_path) == {"otlp": [("uncertain", 1)]}
    assert "1 of what was to be sent is dropped: uncertain" in caplog.text


def test_a_count_of_what_was_dropped_that_may_have_arrived_is_not_counted_itself(world, tmp_path):
    world(otlp=failing(ExportError({METRICS: "no answer"}, uncertain=True)))
    own = delivery(tmp_path, "otlp")
    own.deliver(replace(run_batch(name="telemetry-dropped"), spans=(), logs=()))
    assert waiting(tmp_path) == []


def test_spans_that_may_have_arrived_are_sent_again_for_they_have_ids(world, tmp_path):
    unsure = ExportError({TRACES: "no answer"}, uncertain=True)
    backends = world(otlp=failing(unsure, TRACES, times=1))
    report = delivery(tmp_path, "otlp", patience_s=0.1).deliver(run_batch())
    assert report.targets == {"otlp": ""}
    assert backends["otlp"].signals() == [LOGS, METRICS, TRACES]
    assert waiting(tmp_path) == []


def test_metrics_are_marked_on_disk_while_they_are_sent(world, tmp_path):
    seen = []

    def look(batch):
        if METRICS in batch.signals:
            seen.extend(path.name.partition(".")[2] for path in (tmp_path / "spool" / "otlp").glob("*metrics*"))

    world(otlp=look)
    delivery(tmp_path, "otlp").deliver(run_batch())
    assert seen == ["metrics.jsonl.sending"]


# --- The disk ----------------------------------------------------------------------------------------------------


def test_the_spool_as_a_target_keeps_every_signal(tmp_path):
    report = delivery(tmp_path, "spool").deliver(run_batch())
    assert report.targets == {"spool": ""}
    assert waiting(tmp_path) == ["spool.events", "spool.logs", "spool.metrics", "spool.traces"]


@pytest.mark.parametrize("target", ["datadog", "spool"])
def test_a_disk_that_cannot_be_written_is_told_and_does_not_stop_the_sending(world, tmp_path, caplog, target):
    backends = world(datadog=None)
    state = tmp_path / "state"
    state.write_text("a file in place of the folder")
    safe = []
    report = delivery(state, target).deliver(run_batch(), on_safe=safe.append)
    assert safe == [False]
    assert not report.on_disk
    assert "the log file cannot be written: " in caplog.text
    assert "the spool cannot be written: " in caplog.text
    if target == "spool":
        assert report.targets == {"spool": f"{state / 'spool'} cannot be written"}
    else:
        assert report.targets == {"datadog": ""}
        assert backends["datadog"].signals() == [EVENTS, METRICS, TRACES]


def test_a_full_disk_does_not_stop_the_sending_and_leaves_nothing(world, tmp_path, monkeypatch):
    backends = world(datadog=None)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    report = delivery(tmp_path, "datadog").deliver(run_batch())
    assert not report.on_disk
    assert report.targets == {"datadog": ""}
    assert backends["datadog"].signals() == [EVENTS, METRICS, TRACES]
    assert waiting(tmp_path) == []


def test_metrics_whose_sending_cannot_be_said_on_disk_are_not_sent(world, tmp_path):
    """Else a later replay, which does not know, would send them again."""
    backends = world(otlp=None)
    own = delivery(tmp_path, "otlp")
    report = own.deliver(run_batch(), on_safe=lambda _: [path.unlink() for path in own.spool.paths("otlp")])
    assert backends["otlp"].signals() == [LOGS, TRACES]
    assert report.targets["otlp"].startswith("FileNotFoundError")


def test_a_spool_that_overflows_counts_what_it_dropped(tmp_path, caplog):
    full = delivery(tmp_path, "spool", spool_max_mb=1)
    batch = run_batch(name="large")
    large = replace(batch, points=batch.points * 50)
    for _ in range(12):
        full.deliver(large)
    assert "of what was to be sent is dropped: spool_full" in caplog.text
    told = dropped(tmp_path)["spool"]
    assert {reason for reason, _ in told} == {"spool_full"}
    assert all(count >= 1 for _, count in told)
