"""
Listens where a Datadog Agent would take DogStatsD, and keeps what arrives: the test agent has no such intake.

Datagrams come by UDP or by a Unix socket. The protocol:
https://docs.datadoghq.com/extend/dogstatsd/datagram_shell/
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.live.processes import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

_EVENT = re.compile(rb"_e\{(\d+),(\d+)\}:")


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of one DogStatsD line; `type` is c, g, ms, h, d or s, and `rate` the sample rate."""

    name: str
    value: float | str  # text for a set (type s) only
    type: str
    tags: frozenset[str] = frozenset()
    rate: float = 1.0

    def tag(self, key: str) -> str | None:
        """Returns the value of the tag `key:value`, or None."""
        return next((tag.partition(":")[2] for tag in self.tags if tag.partition(":")[0] == key), None)


@dataclass(frozen=True, slots=True)
class Event:
    """One DogStatsD event."""

    title: str
    text: str
    tags: frozenset[str] = frozenset()
    alert_type: str = "info"
    aggregation_key: str = ""
    fields: tuple[str, ...] = field(default=(), compare=False)


class DogStatsDListener:
    """
    A DogStatsD intake in a thread: a context manager.

    Set the environment variable DD_DOGSTATSD_URL of what is observed to `url`. Without `path` it takes UDP on a
    free port of 127.0.0.1, with `path` it is a Unix datagram socket.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Binds the socket; datagrams wait there until the thread starts."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_DGRAM)
        # Many sidecars end at the same moment; what the kernel cannot hold is lost without a trace.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.settimeout(0.2)
        self._socket.bind(str(path) if path else (LOOPBACK, 0))
        self.url = f"unix://{path}" if path else f"udp://{LOOPBACK}:{self._socket.getsockname()[1]}"
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._events: list[Event] = []
        self._malformed: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="dogstatsd", daemon=True)

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stops the thread and closes the socket."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()
        if self._path:
            self._path.unlink(missing_ok=True)

    def metrics(self, name: str | None = None) -> list[Metric]:
        """Returns what has arrived so far, of the metric `name` or of all."""
        with self._lock:
            return [metric for metric in self._metrics if name is None or metric.name == name]

    def events(self) -> list[Event]:
        """Returns the events that have arrived so far."""
        with self._lock:
            return list(self._events)

    def malformed(self) -> list[str]:
        """Returns the lines that are no DogStatsD."""
        with self._lock:
            return list(self._malformed)

    def clear(self) -> None:
        """Forgets what has arrived so far."""
        with self._lock:
            self._metrics, self._events, self._malformed = [], [], []

    def _listen(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                self._take(self._socket.recv(65536))

    def _take(self, datagram: bytes) -> None:
        for line in filter(None, datagram.split(b"\n")):
            try:
                if line.startswith(b"_e{"):
                    event = parse_event(line)
                    with self._lock:
                        self._events.append(event)
                else:
                    metrics = parse_metrics(line.decode())
                    with self._lock:
                        self._metrics.extend(metrics)
            except ValueError:
                with self._lock:
                    self._malformed.append(line.decode(errors="replace"))


def parse_metrics(line: str) -> list[Metric]:
    """Returns one Metric for each value of a line `name:v1:v2|type|@rate|#tag,tag`; else raises ValueError."""
    head, *parts = line.split("|")
    name, *values = head.split(":")
    if not name or not values or not parts or parts[0] not in {"c", "g", "ms", "h", "d", "s"}:
        raise ValueError(line)
    kind = parts[0]
    rate = next((float(part[1:]) for part in parts[1:] if part.startswith("@")), 1.0)
    return [Metric(name, value if kind == "s" else float(value), kind, _tags(parts[1:]), rate) for value in values]


def parse_event(line: bytes) -> Event:
    """Returns the event of a line `_e{6,4}:title!|text|k:key|t:error|#tags`; else raises ValueError."""
    match = _EVENT.match(line)
    if not match:
        raise ValueError(line)
    title_end = match.end() + int(match[1])
    text_end = title_end + 1 + int(match[2])
    rest = line[text_end:].decode()
    if line[title_end : title_end + 1] != b"|" or len(line) < text_end or not (rest == "" or rest.startswith("|")):
        raise ValueError(line)
    parts = rest.split("|")[1:]
    named = {part[0]: part[2:] for part in parts if part[1:2] == ":"}
    return Event(
        title=line[match.end() : title_end].decode().replace("\\n", "\n"),
        text=line[title_end + 1 : text_end].decode().replace("\\n", "\n"),
        tags=_tags(parts),
        alert_type=named.get("t", "info"),
        aggregation_key=named.get("k", ""),
        fields=tuple(parts),
    )


def _tags(parts: list[str]) -> frozenset[str]:
    return frozenset(tag for part in parts if part.startswith("#") for tag in part[1:].split(",") if tag)
