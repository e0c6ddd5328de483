"""Log records at a stand-in for Datadog's intake, which answers as the real one may, or does not."""

from __future__ import annotations

import gzip
import http.server
import json
import secrets
import threading
from dataclasses import replace

import pytest

from batch_observability.config import Settings
from batch_observability.export.datadog_logs import DatadogLogsTarget, address
from batch_observability.export.deliver import Delivery
from batch_observability.export.replay import replay
from batch_observability.export.signals import Batch, LogRecord
from batch_observability.export.target import Choice, ExportError
from tests.export.batches import new_trace_id, run_batch
from tests.export.worlds import delivery, dropped

KEY = secrets.token_hex(16)
NOW_NS = 1_790_000_000_123_456_000


class Intake:
    """Takes payloads with the statuses that it was given, one after the other, and 202 after that."""

    def __init__(self, port: int) -> None:
        self.environ = {"DD_API_KEY": KEY, "DD_LOGS_CONFIG_LOGS_DD_URL": f"http://127.0.0.1:{port}"}
        self.statuses: list[int] = []
        self.too_large_above = 1 << 30
        self.says = b"{}"
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.taken: list[list[dict]] = []

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> int:
        self.requests.append((path, headers))
        payload = json.loads(gzip.decompress(body))
        status = self.statuses.pop(0) if self.statuses else 202
        if len(payload) > self.too_large_above:
            status = 413
        if status == 202:
            self.taken.append(payload)
        return status

    def records(self) -> list[dict]:
        return [record for payload in self.taken for record in payload]


@pytest.fixture
def intake():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(found.answer(self.path, dict(self.headers), body))
            self.send_header("Content-Length", str(len(found.says)))
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(found.says)

        def log_message(self, *args):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Intake(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def lines(count: int, text: str = "line") -> Batch:
    """Return so many log lines of a run."""
    trace_id = new_trace_id()
    records = tuple(
        LogRecord(NOW_NS + n, "warning", f"{text} {n}", trace_id, 5, {"dd.trace_id": "1f", "rows": n}, "my.module")
        for n in range(count)
    )
    return Batch("churn-service", "3", "test", "run-log", logs=records)


def send(intake: Intake, batch: Batch) -> None:
    DatadogLogsTarget(intake.environ).send(batch)


def refusal(intake: Intake, batch: Batch) -> ExportError:
    with pytest.raises(ExportError) as raised:
        send(intake, batch)
    assert raised.value.signals == {"logs"}
    assert KEY not in str(raised.value)
    return raised.value


# --- What it gets ------------------------------------------------------------------------------------------------


def test_a_record_arrives_as_a_line_with_what_datadog_reserves(intake):
    send(intake, lines(2))
    ((first, second),) = intake.taken
    assert (first["message"], second["message"]) == ("line 0", "line 1")
    assert first.pop("hostname")
    assert first == {
        "timestamp": "2026-09-21T14:13:20.123456+00:00",
        "level": "warning",
        "logger": "my.module",
        "event": "line 0",
        "message": "line 0",
        "dd.trace_id": "1f",
        "rows": 0,
        "ddsource": "batch_observability",
        "service": "churn-service",
        "ddtags": "env:test,version:3",
    }
    ((path, headers),) = intake.requests
    assert path == "/api/v2/logs"
    assert (headers["Dd-Api-Key"], headers["Content-Type"]) == (KEY, "application/json")


def test_what_is_more_than_the_intake_takes_at_once_goes_in_pieces_and_in_order(intake):
    send(intake, lines(2500))
    assert [len(payload) for payload in intake.taken] == [1000, 1000, 500]
    assert [record["rows"] for record in intake.records()] == list(range(2500))
    intake.taken.clear()
    send(intake, lines(12, "x" * 900_000))
    assert len(intake.taken) > 2
    assert all(len(json.dumps(payload)) < 5_000_000 for payload in intake.taken)
    # What the intake would cut is sent without the second copy of the message.
    assert all(len(json.dumps(record)) < 1_000_000 and "event" not in record for record in intake.records())


def test_nothing_to_say_is_not_said(intake):
    send(intake, replace(lines(0)))
    assert intake.requests == []


# --- What it answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 503, 301])
def test_what_may_be_taken_later_is_no_loss(intake, status):
    intake.statuses = [status]
    error = refusal(intake, lines(1))
    assert (error.rejected, str(status) in str(error)) == (False, True)
    send(intake, lines(1))
    assert len(intake.taken) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_told_with_the_remedy_and_nothing_is_thrown_away(intake, status):
    intake.statuses = [status]
    error = refusal(intake, lines(1))
    assert not error.rejected
    assert "check DD_API_KEY, and DD_SITE, which it belongs to" in str(error)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_will_never_be_taken_is_rejected(intake, status):
    intake.statuses = [status]
    assert refusal(intake, lines(1)).rejected


def test_a_payload_that_is_too_large_goes_in_halves_and_only_what_alone_is_too_large_is_rejected(intake):
    intake.too_large_above = 3
    send(intake, lines(10))
    assert [record["rows"] for record in intake.records()] == list(range(10))
    assert max(map(len, intake.taken)) <= 3


def test_what_the_intake_says_is_told_without_the_key(intake):
    intake.statuses, intake.says = [400], f'{{"errors": ["no JSON of {KEY}"]}}'.encode()
    assert '400: {"errors": ["no JSON of ***' in str(refusal(intake, lines(1)))


def test_a_redirect_is_not_followed_with_the_key(intake):
    intake.statuses = [307]
    assert "307" in str(refusal(intake, lines(1)))
    assert len(intake.requests) == 1


def test_an_intake_that_is_away_or_silent_is_told(intake, refused, silent, monkeypatch):
    monkeypatch.setattr("batch_observability.export.intake._TIMEOUT_S", 0.2)
    for port in (refused, silent):
        intake.environ["DD_LOGS_CONFIG_LOGS_DD_URL"] = f"http://127.0.0.1:{port}"
        error = refusal(intake, lines(1))
        assert not error.rejected
        assert f"http://127.0.0.1:{port}/api/v2/logs did not answer" in str(error)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "DD_API_KEY is not set"),
        (" ", "DD_API_KEY is not set"),
        (f"{KEY[:8]}\n{KEY[8:]}", "DD_API_KEY is no key"),
        (f"{KEY}é", "DD_API_KEY is no key"),
    ],
    ids=["unset", "blank", "in two lines", "not ASCII"],
)
def test_a_key_that_is_none_is_told_and_not_shown(intake, key, said):
    intake.environ["DD_API_KEY"] = key
    error = refusal(intake, lines(1))
    assert said in str(error)
    assert KEY[:8] not in str(error)
    assert intake.requests == []


def test_white_space_around_a_key_is_nobodys_fault(intake):
    intake.environ["DD_API_KEY"] = f" {KEY}\n"
    send(intake, lines(1))
    assert intake.requests[0][1]["Dd-Api-Key"] == KEY


def test_the_key_is_in_no_repr(intake):
    target = DatadogLogsTarget(intake.environ)
    assert KEY not in repr(target)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "https://http-intake.logs.datadoghq.com/api/v2/logs"),
        ({"DD_SITE": "datadoghq.eu"}, "https://http-intake.logs.datadoghq.eu/api/v2/logs"),
        ({"DD_LOGS_CONFIG_LOGS_DD_URL": "logs.example.com:443"}, "https://logs.example.com:443/api/v2/logs"),
        ({"DD_LOGS_CONFIG_LOGS_DD_URL": "http://proxy:8080/"}, "http://proxy:8080/api/v2/logs"),
        ({"DD_LOGS_CONFIG_LOGS_DD_URL": "http://proxy/api/v2/logs"}, "http://proxy/api/v2/logs"),
    ],
)
def test_the_address_is_that_of_the_site_or_the_one_that_the_agent_has(environ, url):
    assert address(environ) == url


@pytest.mark.parametrize("url", ["ftp://logs", "http://", "http://host:none", "http://[::1"])
def test_an_address_that_is_none_is_told(url):
    with pytest.raises(ExportError, match="write a host and port, or a URL with http or https"):
        address({"DD_LOGS_CONFIG_LOGS_DD_URL": url})


# --- With the spool ----------------------------------------------------------------------------------------------


@pytest.fixture
def here(intake, monkeypatch):
    for name, value in intake.environ.items():
        monkeypatch.setenv(name, value)
    return intake


def test_lines_that_wait_are_sent_once_and_gone(here, tmp_path):
    own = delivery(tmp_path, "datadog-logs")
    assert own.keep(lines(3))
    assert here.taken == []
    assert replay(own).sent == {"datadog-logs": 1}
    assert [record["event"] for record in here.records()] == ["line 0", "line 1", "line 2"]
    assert [record["logger"] for record in here.records()] == ["my.module"] * 3
    assert replay(own).sent == {}


def test_lines_stay_where_the_intake_is_busy_and_go_where_it_never_takes_them(here, tmp_path):
    own = delivery(tmp_path, "datadog-logs")
    for _ in range(5):
        own.keep(lines(1))
    here.statuses = [500, 500, 500]
    done = replay(own)
    assert "500" in done.refused["datadog-logs"]
    assert len(own.spool.paths("datadog-logs")) == 5
    # More than the refusals in a row that make a target one that is away.
    here.statuses = [400, 400, 400, 400]
    done = replay(own)
    assert (done.sent, done.dropped) == ({"datadog-logs": 1}, {"rejected": 4})
    assert own.spool.paths("datadog-logs") == []


def test_what_is_rejected_is_counted(here, tmp_path):
    own = delivery(tmp_path, "datadog-logs", "spool")
    here.statuses = [400]
    report = own.deliver(run_batch())
    assert "400" in report.targets["datadog-logs"]
    assert dropped(tmp_path) == {"spool": [("rejected", 1)]}
    assert own.spool.paths("datadog-logs") == []


def test_the_key_is_not_on_disk(here, tmp_path):
    own = delivery(tmp_path, "datadog-logs")
    here.statuses = [403] * 3
    own.keep(lines(1))
    own.deliver(run_batch())
    replay(own)
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert texts
    assert not any(KEY.encode() in text for text in texts)


def test_what_the_intake_takes_is_not_kept_for_a_backend_that_comes_later(here, tmp_path):
    own = Delivery(Settings(state_dir=str(tmp_path)), Choice(("spool", "datadog-logs"), ()), patience_s=0)
    own.deliver(run_batch())
    assert len(here.records()) == 1
    assert sorted({path.name.split(".")[-2] for path in own.spool.paths("spool")}) == ["events", "metrics", "traces"]
