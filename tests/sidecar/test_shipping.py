"""Log lines of a run by way of its sidecar: collected, on disk, at a target; and what becomes of them when it dies."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from batch_observability import schema
from batch_observability.channel import OFFERED, PART
from batch_observability.config import Settings
from batch_observability.export import deliver
from batch_observability.export.deliver import Delivery
from batch_observability.export.otlp_read import decode
from batch_observability.export.spool import Spool
from batch_observability.export.target import Choice
from batch_observability.sidecar import shipping
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.shipping import Shipping
from tests.live import wait_until
from tests.sidecar.frames import TRACE_ID, at, end, lines, spooled, start
from tests.sidecar.in_process import observe, observing, phase

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    pytest.mark.timeout(90),
]
PID = 77


def line(number: int, pid: int = PID, **values) -> dict:
    """Return the frame of a log line."""
    return {
        "t": "log",
        "ts": at(number),
        "level": "info",
        "logger": "my.module",
        "event": f"line {number}",
        "trace": f"{TRACE_ID:032x}",
        "span": "9",
        "attributes": {"rows": number},
        "pid": pid,
        "n": number,
        **values,
    }


def texts(state) -> list[str]:
    """Return the user's lines in the spool, in order."""
    found = spooled(state, "logs")
    return [record["body"]["stringValue"] for record in found if record["body"]["stringValue"].startswith("line")]


def dropped(state) -> dict[str, float]:
    """Return what was told as dropped, by reason."""
    metrics = [metric for metric in spooled(state, "metrics") if metric["name"] == "batch_model.telemetry.dropped"]
    found = {}
    for metric in metrics:
        for point in metric["sum"]["dataPoints"]:
            tags = {item["key"]: item["value"]["stringValue"] for item in point["attributes"]}
            found[tags["reason"]] = point["asDouble"]
    return found


class Here:
    """Does at once what an observer does in a child."""

    forks = False

    def __call__(self, do):
        do()


@pytest.fixture
def own(state):
    """Return the shipping of a run whose signals are for the spool."""
    first = start(PID, state)
    settings = Settings.from_frame(first["settings"])
    return Shipping(Observation.begin(first, 10), Delivery(settings, Choice(("spool",), ())), Here())


# --- Collected ---------------------------------------------------------------------------------------------------


def test_a_line_has_the_fields_of_its_run_and_the_ids_of_its_span(pair, state):
    observe(pair, start(PID, state), line(1, level="error", span="12345"), end())
    (record,) = [one for one in spooled(state, "logs") if one["body"]["stringValue"] == "line 1"]
    assert (record["traceId"], record["spanId"]) == (f"{TRACE_ID:032x}", f"{12345:016x}")
    assert (record["severityNumber"], record["severityText"], record["timeUnixNano"]) == (17, "ERROR", str(at(1)))
    assert record["attributes"] == {
        "dd.trace_id": f"{TRACE_ID:032x}",
        "dd.span_id": "12345",
        "dd.service": "churn-service",
        "dd.env": "test",
        "dd.version": "3",
        "batch_model.name": "churn",
        "batch_model.run_id": "0199-run",
        "airflow.dag_id": "dag",
        "airflow.task_id": "task",
        "airflow.dag_run.run_id": "manual__1",
        "airflow.task_instance.try_number": 1,
        "airflow.task_instance.map_index": -1,
        "airflow.dagRun.dag_id": "dag",
        "airflow.dagRun.run_id": "manual__1",
        "airflow.task.task_id": "task",
        "rows": 1,
    }


def test_the_logger_is_the_scope(pair, state):
    observe(pair, start(PID, state), line(1), line(2, logger="other"), line(3, logger="other"), end())
    (path,) = (state / "spool" / "spool").glob("*-log.logs.jsonl")
    (resource,) = json.loads(path.read_text("utf-8"))["resourceLogs"]
    found = [(scope["scope"]["name"], len(scope["logRecords"])) for scope in resource["scopeLogs"]]
    assert found == [("my.module", 1), ("other", 2)]


def test_lines_keep_their_order_and_none_is_there_twice(pair, state):
    ours, theirs = pair
    with observing(theirs, separate=False):
        ours.sendall(lines(start(PID, state), *(line(number) for number in range(1, 2501)), end()))
    assert texts(state) == [f"line {number}" for number in range(1, 2501)]
    assert dropped(state) == {}


def test_lines_are_on_disk_while_the_run_goes_on(pair, child, state):
    ours, theirs = pair
    popen, pidfd = child
    with observing(theirs, pidfd):
        ours.sendall(lines(start(popen.pid, state), line(1)))
        wait_until(lambda: texts(state), "the line is on disk", 20, every=0.05)
        ours.sendall(lines(end()))


def test_a_file_holds_no_more_than_is_sent_at_once(own, state):
    for number in range(1, 1001):
        own.add(line(number))
    assert len(texts(state)) == 1000
    for number in range(1001, 1011):
        own.add(line(number, event="line " + "x" * 900_000))
    own.finish()
    sizes = [path.stat().st_size for path in (state / "spool" / "spool").glob("*.logs.jsonl")]
    assert len(texts(state)) == 1010
    assert max(sizes) < 3_000_000


def test_a_long_line_that_came_in_parts_is_whole_and_parts_of_two_processes_are_not_mixed(own, state):
    frames = [line(1, pid=pid, event=f"line of {pid}") for pid in (1, 2)]
    halves = [(text[:100], text[100:]) for text in map(json.dumps, frames)]
    for half in (0, 1):
        for pid in (1, 2):
            own.add({"t": PART, "pid": pid, "n": 1, "text": halves[pid - 1][half], "last": bool(half)})
    own.finish()
    assert texts(state) == ["line of 1", "line of 2"]


def test_parts_without_an_end_are_given_up(own):
    for _ in range(1200):
        own.add({"t": PART, "pid": 1, "n": 1, "text": "x" * 8000, "last": False})
    assert sum(map(len, own._parts.get(1, []))) < 9_000_000


@pytest.mark.parametrize(
    "values",
    [
        {"level": "notice"},
        {"level": None},
        {"attributes": {"deep": json.loads("[" * 200 + "]" * 200)}},
        {"attributes": {"large": 10**30, "small": float("nan"), "none": None, "list": [1, "a", {"b": None}]}},
        {"event": "line \u2028 \x00"},
        {"event": 5},
        {"logger": ""},
    ],
)
def test_whatever_a_line_holds_it_can_be_read_back_from_disk(own, state, values):
    own.add(line(1, **values))
    own.finish()
    (path,) = (state / "spool" / "spool").glob("*.logs.jsonl")
    (record,) = decode("logs", json.loads(path.read_text("utf-8")), "name").logs
    assert record.level == "info"
    assert (record.trace_id, record.span_id) == (TRACE_ID, 9)


@pytest.mark.parametrize(
    "values",
    [
        {"trace": "none"},
        {"trace": "f" * 33},
        {"span": str(1 << 64)},
        {"attributes": None},
        {"attributes": [1]},
        {"ts": "x"},
    ],
)
def test_what_is_no_line_is_counted_and_harms_nobody(own, state, values):
    own.add(line(1, **values))
    own.add(line(2))
    own.finish()
    assert texts(state) == ["line 2"]
    assert own._observation.dropped_logs == 1


# --- Lost on the way ---------------------------------------------------------------------------------------------


def test_lines_that_did_not_come_are_told_as_dropped(pair, state):
    frames = [line(1), line(4), line(1, pid=78), {"t": OFFERED, "pid": PID, "n": 6}]
    observe(pair, start(PID, state), *frames, end())
    assert texts(state) == ["line 1", "line 4", "line 1"]
    assert dropped(state) == {"log": 4}
    (run, *_) = spooled(state, "traces")
    assert schema.DROPPED not in run["attributes"]


def test_a_line_that_comes_after_the_end_is_no_loss(pair, state):
    observe(pair, start(PID, state), line(1), {"t": OFFERED, "pid": PID, "n": 2}, end(), line(2))
    assert texts(state) == ["line 1", "line 2"]
    assert dropped(state) == {}


def test_a_disk_that_is_full_costs_the_lines_and_is_counted(pair, state, monkeypatch):
    original = Spool.put

    def put(self, batch, targets, change):
        if batch.name.endswith("-log"):
            raise OSError(28, "No space left on device")
        return original(self, batch, targets, change)

    monkeypatch.setattr(Spool, "put", put)
    observe(pair, start(PID, state), line(1), line(2), end())
    assert dropped(state) == {"log": 2}


def test_where_nobody_takes_lines_that_is_said_once(pair, state, caplog):
    observe(pair, start(PID, state, export=["datadog"], retry_for=0.1), line(1), line(2), end())
    assert [r.message for r in caplog.records if "BATCHOBS_SHIP_LOGS" in r.message] == [
        "BATCHOBS_SHIP_LOGS is on, and none of datadog takes log lines: batchobs doctor says why"
    ]


def test_lines_of_a_run_that_pauses_are_on_disk_and_what_was_lost_is_told_at_its_end(state):
    paused = {"t": "pause", "ts": at(5), "usage": {"cpu_s": 0.0, "memory_peak": 1}}
    phase(start(PID, state), line(1), line(3), paused)
    assert texts(state) == ["line 1", "line 3"]
    again = start(PID, state)
    again["context"]["resumed"] = True
    phase({**again, "phase_ns": at(6)}, line(1), end())
    assert texts(state) == ["line 1", "line 3", "line 1"]
    assert dropped(state) == {"log": 1}


def test_when_the_spool_is_full_lines_go_before_spans(state):
    spool = Spool(state / "spool", 1, 1)
    own = Delivery(Settings(state_dir=str(state), spool_max_mb=1), Choice(("spool",), ()))
    observation = Observation.begin(start(PID, state), 10)
    ship = Shipping(observation, own, Here())
    phase(start(PID, state), end())
    for number in range(1, 9):
        ship.add(line(number, event="line " + "x" * 400_000))
    ship.finish()
    assert spooled(state, "traces")
    assert spooled(state, "metrics")
    assert sum(one.size for one in spool.status()) < 1_100_000


# --- Sent --------------------------------------------------------------------------------------------------------


class Taker:
    """Takes all, and remembers it."""

    def __init__(self):
        self.events = []

    def send(self, batch):
        self.events += [record.event for record in batch.logs]


def test_in_a_thread_of_the_task_nothing_is_forked_and_the_rest_is_sent_at_the_end(pair, state, monkeypatch):
    taker = Taker()
    monkeypatch.setattr(deliver, "make_target", lambda *_: taker)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it forked"))
    observe(
        pair, start(PID, state, export=["datadog-logs"]), *(line(number) for number in range(1, 1002)), end(wait=True)
    )
    assert [event for event in taker.events if event.startswith("line")] == [f"line {n}" for n in range(1, 1002)]
    assert texts(state) == []


def test_one_child_at_a_time_sends_while_the_run_goes_on(pair, child, state, monkeypatch, tmp_path):
    """What the children send is seen by what they write: they are processes of their own."""
    sent = tmp_path / "sent"

    class Writer:
        def send(self, batch):
            with sent.open("a") as file:
                file.write("".join(f"{os.getpid()} {record.event}\n" for record in batch.logs))

    monkeypatch.setattr(deliver, "make_target", lambda *_: Writer())
    monkeypatch.setattr(shipping, "_PAUSE_S", 0.6)
    monkeypatch.setattr(shipping, "_MAX_WAIT_S", 0.1)
    ours, theirs = pair
    popen, pidfd = child

    def arrived():
        return [text.split(" ", 1) for text in sent.read_text().splitlines()] if sent.exists() else []

    with observing(theirs, pidfd):
        ours.sendall(lines(start(popen.pid, state, export=["datadog-logs"], sample_interval=60.0)))
        for number in range(1, 9):
            ours.sendall(lines(line(number)))
            wait_until(
                lambda number=number: [e for _, e in arrived() if e == f"line {number}"], "it is sent", 20, every=0.05
            )
        ours.sendall(lines(end()))
    found = [(int(pid), event) for pid, event in arrived() if event.startswith("line")]
    assert [event for _, event in found] == [f"line {n}" for n in range(1, 9)]
    children = {pid for pid, _ in found}
    assert os.getpid() not in children
    assert len(children) < 8


# --- Real sidecars -----------------------------------------------------------------------------------------------


def otlp(agent) -> dict[str, str]:
    return {
        "BATCHOBS_EXPORT": "otlp",
        "BATCHOBS_SHIP_LOGS": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp_url,
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "DD_ENV": "staging",
    }


def arrived(agent, observed) -> list[dict]:
    """Return the user's lines at the agent."""
    return [
        record
        for record in agent.otlp_logs()
        if record["resource"].get("service.name") == observed.service and record["body"].startswith("line ")
    ]


def ship_lines(observed, count: int, total: int) -> None:
    observed.popen.stdin.write(f"{count}\n".encode())
    observed.popen.stdin.flush()
    wait_until(lambda: observed.said().get("shipped", 0) >= total, "they are shipped", 20, every=0.02)


def test_lines_arrive_by_otlp_with_their_ids_severity_and_resource(observe, agent):
    observed = observe("logs", **otlp(agent))
    ship_lines(observed, 300, 300)
    observed.tell()
    observed.wait()
    wait_until(lambda: len(arrived(agent, observed)) >= 300, "all lines are there", 30, every=0.1)
    observed.wait_unobserved()
    records = arrived(agent, observed)
    assert sorted(record["attributes"]["n"] for record in records) == list(range(300))
    span_id = observed.said()["span_id"]
    for record in records:
        assert (record["trace_id"], record["span_id"]) == (f"{observed.trace_id:032x}", f"{span_id:016x}")
        assert record["severity_number"] in {13, "SEVERITY_NUMBER_WARN"}
        assert record["severity_text"] == "WARNING"
        assert record["resource"]["service.version"] == "1"
        assert record["resource"]["deployment.environment.name"] == "staging"
        assert record["attributes"]["batch_model.stage"] == "score"


@pytest.mark.thorough
def test_a_killed_sidecar_loses_only_what_was_not_on_disk_and_the_next_sends_the_rest_once(observe, agent, state):
    away = {**otlp(agent), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
    away["BATCHOBS_RETRY_FOR"] = "0.5"
    observed = observe("logs", **away)
    sidecar = observed.sidecar()
    ship_lines(observed, 200, 200)
    wait_until(lambda: len(texts(state)) == 200, "they are on disk", 20, every=0.05)
    sidecar.suspend()
    ship_lines(observed, 50, 250)
    sidecar.kill()
    sidecar.wait(10)
    ship_lines(observed, 10, 260)
    observed.tell()
    observed.wait()
    observed.wait_unobserved()
    # Another run of the host, whose backend is there.
    other = observe("logs", **otlp(agent))
    other.tell()
    other.wait()
    other.wait_unobserved()
    found = Counter(record["attributes"]["n"] for record in arrived(agent, observed))
    assert set(found.values()) == {1}
    assert set(range(200)) <= set(found)
    assert set(found) <= {*range(200), *range(200, 260)}


def test_many_lines_at_once_neither_hold_the_task_nor_cost_its_outcome(observe, agent, state):
    observed = observe("logs", **{**otlp(agent), "BATCHOBS_EXPORT": "spool"})
    ship_lines(observed, 20_000, 20_000)
    observed.tell()
    assert observed.wait() == 0
    observed.wait_unobserved()
    (run, *_) = spooled(state, "traces")
    assert run["attributes"]["batch_model.outcome"] == "success"
    numbers = [int(text.split()[1]) for text in texts(state)]
    assert numbers == sorted(set(numbers))
    lost = dropped(state).get("log", 0)
    assert len(numbers) + lost == 20_000
