"""
One attempt of a job, told to its observer: what it is, that its command runs, and how it ended.

The observer is a process beside the command that does all that takes long. What it must know is written to a pipe,
whose end says that this process is gone; and to disk, where the next reader finds it if the observer is killed.
Nothing here may keep a job from running: what fails is passed over.
"""

from __future__ import annotations

import os
import time

from batch_observability.cron.bare import suppress
from batch_observability.cron.beside import Beside
from batch_observability.private import private_folder, private_in_tmp
from batch_observability.usage import birth, host_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_observability.cron.forwarding import Ended
    from batch_observability.cron.ready import Ready
    from batch_observability.cron.streams import Streams

# As in `sidecar.journal`, which takes long to load.
ENDED, OUTPUT = ".end", ".out"
RUNS, _CHANNELS = "runs", "channels"
# The system takes 107 bytes, macOS 103.
_MAX_PATH = 100
_WAITING = 64
_PARENT_VARIABLE = "TRACEPARENT"


class Trace:
    """The trace that all attempts of a job are in: the one that this process was started in, or a new one."""

    def __init__(self) -> None:
        self.trace_id = int.from_bytes(os.urandom(16), "big") or 1
        self.parent_id: int | None = None
        self.before: int | None = None
        if given := os.environ.get(_PARENT_VARIABLE):
            from batch_observability.ids import parse_traceparent

            if inbound := parse_traceparent(given):
                self.trace_id, self.parent_id = inbound.trace_id, inbound.span_id


class Telling:
    """
    Tells of one attempt.

    Args:
        job: what is run.
        trace: that it is in.
        number: of the attempt, from 1.
        waits: this process must not leave before all is told: what observes it ends with it.
    """

    def __init__(self, job: Ready, trace: Trace, number: int, *, waits: bool) -> None:
        self._job = job
        self._trace_id = trace.trace_id
        self._span_id = int.from_bytes(os.urandom(8), "big") or 1
        self.run_id = uuid()
        self._start_ns = time.time_ns()
        self.context = self._context(trace, number)
        trace.before = self._span_id
        self._waits = waits
        self._observer: Beside | None = None
        self._command: tuple[int, str] | None = None
        self.channel = ""

    def _context(self, trace: Trace, number: int) -> str:
        """Return what is known of the run, as JSON: what is known of the job, and what is this attempt's."""
        job, parent = self._job, "null" if trace.parent_id is None else trace.parent_id
        linked = f"[[{trace.trace_id},{trace.before}]]" if trace.before else "[]"
        return (
            f'{{{job["context"]},"run_id":"{self.run_id}","trace_id":{trace.trace_id},"span_id":{self._span_id},'
            f'"parent_id":{parent},"orphan_parent_id":{parent},"linked_spans":{linked},'
            f'"attributes":{{{job["try_number"]}:{number}}},"start_ns":{self._start_ns},'
            f'"retries_left":{_boolean(number <= job.retries)}}}'
        )

    @property
    def place(self) -> str:
        """Place of the run in its trace, as a traceparent."""
        return f"00-{self._trace_id:032x}-{self._span_id:016x}-01"

    @property
    def attributes(self) -> str:
        """OpenTelemetry's resource attributes of the job's processes."""
        given, name = self._job["attributes"], self._job["run_attribute"]
        return ",".join(part for part in (given, f"{name}={self.run_id}" if name else "") if part)

    def path(self, suffix: str) -> str:
        """Return where something of this run is kept."""
        return f"{self._job.state}/{RUNS}/{self.run_id}{suffix}"

    def begin(self, streams: Streams | None = None) -> None:
        """Start the observer, and be there for the command's processes, before there are any."""
        with suppress(OSError):
            private_folder(f"{self._job.state}/{RUNS}")
        listener = self._listen()
        try:
            self._observe(listener, streams)
        finally:
            if listener is not None:
                os.close(listener)
        self._write(".json", self._journal().encode("utf-8", "surrogateescape"))

    def runs(self, pid: int) -> None:
        """Tell that the command runs."""
        self._command = (pid, birth(pid))
        if self._observer is not None:
            self._observer.tell(f'{{"command":{_process(pid)}}}\n')

    def ended(
        self, how: Ended, *, timed_out: str, retries: bool, missed: int, sizes: Iterable[int], tail: bytes
    ) -> None:
        """Tell how the command ended, and what it wrote last; then this is over."""
        facts = (
            f'{{"end_ns":{time.time_ns()},"status":{how.status},"asked":{sorted(how.asked)},"timed_out":"{timed_out}",'
            f'"retries":{_boolean(retries)},"cpu_s":{how.cpu_s},"memory_peak":{how.memory_peak},"missed":{missed},'
            f'"sizes":{list(sizes)}}}\n'
        )
        self._end(facts.encode() + tail)

    def ended_otherwise(self, outcome: str, *, kind: str = "", message: str = "", event: str = "") -> None:
        """Tell that there was no command, and why; then this is over."""
        import json

        facts = {"end_ns": time.time_ns(), "outcome": outcome, "kind": kind, "message": message, "event": event}
        self._end(json.dumps(facts).encode() + b"\n")

    def _end(self, facts: bytes) -> None:
        # The file is for who comes when the observer is killed, before or after it has read this.
        self._write(ENDED, facts)
        if self._observer is None or not self._observer.is_there:
            if self._observer is not None:
                self._observer.leave()
            self._observe(None, None)
        if self._observer is not None:
            self._observer.tell(facts)
            self._observer.leave(float(self._job["wait_timeout"]) if self._waits else None)

    # --- The observer ------------------------------------------------------------------------------------------------

    def _observe(self, listener: int | None, streams: Streams | None) -> None:
        """Start the observer; what goes wrong is left to the next reader of the journal."""
        pipes, followed = (streams.pipes, streams.followed) if streams else ([], [])
        shared = [] if listener is None else [listener]
        self._observer = observer = Beside([*shared, *(one.descriptor for one in followed)])
        inodes = ",".join(f'"{stream}":{pipe.inode}' for pipe in pipes for stream in pipe.stands_for)
        files = ",".join(f"[{one.descriptor},{one.stream},{one.begins}]" for one in followed)
        observer.tell(
            f'{{"context":{self.context},{self._job["observer"]},"parent":{_process(os.getpid())},'
            f'"waits":{_boolean(self._waits)},"answers":{observer.answers},"channel":"{_plain(self.channel)}",'
            f'"listener":{"null" if listener is None else listener},"followed":[{files}],"pipes":{{{inodes}}}}}\n'
        )
        if self._command is not None:
            observer.tell(f'{{"command":[{self._command[0]},"{self._command[1]}"]}}\n')

    # --- On disk ----------------------------------------------------------------------------------------------------

    def _journal(self) -> str:
        """Return what is known when the run begins, in the form that `sidecar.journal` has."""
        observer = f",{_process(self._observer.pid)}" if self._observer and self._observer.pid else ""
        return (
            f'{{"observation":{{"context":{self.context},"max_stages":{self._job["max_stages"]},'
            f'"phase_began_ns":{self._start_ns}}},"pid":{os.getpid()},"birth":"{birth(os.getpid())}",'
            f'"host":"{_plain(host_name())}","start_told":false,"paused":false,'
            f'"tellers":[{_process(os.getpid())}{observer}]}}'
        )

    def _write(self, suffix: str, data: bytes) -> None:
        with suppress(OSError):  # a full disk, or one that cannot be written; the observer has it
            # What is there already, the observer has written, which knows more.
            descriptor = os.open(self.path(suffix), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def _listen(self) -> int | None:
        """Open the socket where the job's processes bring their frames, for the observer; None if there can be none."""
        from _socket import AF_UNIX, SOCK_STREAM, socket

        try:
            path = self._socket_path()
            listener = socket(AF_UNIX, SOCK_STREAM)
            try:
                listener.bind(path)
                os.chmod(path, 0o600)  # noqa: PTH101
                listener.listen(_WAITING)
            except OSError:
                listener.close()
                raise
        except OSError:
            return None
        self.channel = path
        return listener.detach()

    def _socket_path(self) -> str:
        """Return where the socket is to be: in the state folder, or where its path is too long, in /tmp."""
        name = f"{self.run_id[:18]}.sock"
        folder = f"{self._job.state}/{_CHANNELS}"
        if len(os.fsencode(f"{folder}/{name}")) <= _MAX_PATH:
            private_folder(folder)
            return f"{folder}/{name}"
        return f"{private_in_tmp()}/{name}"


def uuid() -> str:
    """Return a random UUID (RFC 9562, version 4), as `uuid.uuid4` does, whose import takes long."""
    number = bytearray(os.urandom(16))
    number[6], number[8] = number[6] & 0x0F | 0x40, number[8] & 0x3F | 0x80
    text = number.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _process(pid: int) -> str:
    return f'[{pid},"{birth(pid)}"]'


def _boolean(value: object) -> str:
    return "true" if value else "false"


def _plain(text: str) -> str:
    """Return text as it stands in a JSON string; `json` takes long to load."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    import json

    return json.dumps(text)[1:-1]
