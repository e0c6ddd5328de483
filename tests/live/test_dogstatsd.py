"""The DogStatsD listener understands what Datadog's client sends."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from datadog.dogstatsd import DogStatsd

from tests.live.dogstatsd import DogStatsDListener, Metric, parse_event, parse_metrics
from tests.live.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def test_a_line_with_several_values_is_several_metrics():
    """Type, sample rate and tags hold for each of them; what follows (container, time) is no tag."""
    tags = frozenset({"env:demo", "model:churn"})
    assert parse_metrics("rows.read:1:2.5|d|@0.5|#env:demo,model:churn|c:ci-1|T1656581400") == [
        Metric("rows.read", 1.0, "d", tags, 0.5),
        Metric("rows.read", 2.5, "d", tags, 0.5),
    ]


@pytest.mark.parametrize("line", ["", "name", "name:1", "name:1|x", "name:one|c", ":1|c", "name:1|c|@half"])
def test_what_is_no_metric_is_refused(line):
    with pytest.raises(ValueError):
        parse_metrics(line)


def test_an_event_may_hold_bars_and_line_breaks():
    """Its lengths say where title and text end, in bytes."""
    event = parse_event("_e{9,8}:a|b früh|x\\ny | z|t:error|k:churn|#env:demo".encode())
    assert (event.title, event.text) == ("a|b früh", "x\ny | z")
    assert (event.alert_type, event.aggregation_key, event.tags) == ("error", "churn", {"env:demo"})


@pytest.mark.parametrize("line", [b"_e{1}:a|b", b"_e{2,1}:a|b", b"_e{1,5}:a|b", b"_e{1,1}:a|bc"])
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError):
        parse_event(line)


@pytest.mark.parametrize("transport", ["udp", "unix"])
def test_it_receives_what_the_datadog_client_sends(transport, tmp_path: Path):
    path = tmp_path / "dsd.socket" if transport == "unix" else None
    with DogStatsDListener(path) as listener:
        client = (
            DogStatsd(socket_path=str(path), disable_telemetry=True)
            if path
            else DogStatsd("127.0.0.1", int(listener.url.rpartition(":")[2]), disable_telemetry=True)
        )
        client.increment("run.started", tags=["env:demo"])
        client.distribution("run.duration", 1.5)
        client.event("model late", "by 5 min\nsee runbook", alert_type="warning", aggregation_key="churn")
        client.flush()
        wait_until(lambda: len(listener.metrics()) == 2 and listener.events(), "all arrives", 5, listener.metrics)
        assert listener.metrics("run.started") == [Metric("run.started", 1.0, "c", frozenset({"env:demo"}))]
        assert listener.metrics("run.duration")[0].value == 1.5
        assert listener.events()[0].text == "by 5 min\nsee runbook"
        listener.clear()
        assert listener.metrics() == []
        client.close_socket()


def test_a_line_that_it_does_not_understand_is_kept():
    with DogStatsDListener() as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"good:1|c\nnonsense", ("127.0.0.1", int(listener.url.rpartition(":")[2])))
        wait_until(listener.malformed, "the line arrives", 5)
        assert listener.malformed() == ["nonsense"]
        assert [metric.name for metric in listener.metrics()] == ["good"]
