"""
One attempt of a job, told to its observer: what it is, that its command runs, and how it ended.

The observer is a process beside the command that does all that takes long. What it must know is written to a pipe,
whose end says that this process is gone; and to disk, where the next reader finds it if the observer is killed.
Nothing here may keep a job from running: what fails is passed over.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time

from batch_observability.cron.bare import suppress
from batch_observability.cron.streams import inherited
from batch_observability.usage import birth, host_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batch_observability.cron.forwarding import Ended
    from batch_observability.cron.ready import Ready
    from batch_observability.cron.streams import Streams

ROLE = "job"
# What is kept of an open run, beside its journal: how its command ended, and what it wrote.
ENDED, OUTPUT = ".end", ".out"
_RUNS, _CHANNELS = "runs", "channels"
_MAIN = f"{os.path.dirname(os.path.dirname(__file__))}/sidecar/__main__.py"  # noqa: PTH120  (pathlib takes long to load)
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
        self._observer = 0
        self._command: tuple[int, str] | None = None
        self._pipe = self._answers = -1
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
        return f"{self._job.state}/{_RUNS}/{self.run_id}{suffix}"

    def begin(self, streams: Streams | None = None) -> None:
        """Start the observer, and be there for the command's processes, before there are any."""
        with suppress(OSError):
            os.makedirs(f"{self._job.state}/{_RUNS}", 0o700, exist_ok=True)  # noqa: PTH103
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
        self._tell(f'{{"command":{_process(pid)}}}\n')

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
        if not self._is_observed():
            self._close()
            self._observe(None, None)
        self._tell(facts)
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._waits and self._answers >= 0:
            poll = select.poll()
            poll.register(self._answers, select.POLLIN)
            poll.poll(float(self._job["wait_timeout"]) * 1000)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._pipe, self._answers):
            if descriptor >= 0:
                os.close(descriptor)
        self._pipe = self._answers = -1

    # --- The observer ------------------------------------------------------------------------------------------------

    def _observe(self, listener: int | None, streams: Streams | None) -> None:
        """Start the observer, in a session of its own; what goes wrong is left to the next reader of the journal."""
        hears, self._pipe = os.pipe()
        self._answers, answers = os.pipe()
        followed = streams.followed if streams else []
        pipes = ",".join(
            f'"{stream}":{pipe.inode}' for pipe in (streams.pipes if streams else []) for stream in pipe.stands_for
        )
        files = ",".join(f"[{one.descriptor},{one.stream},{one.begins}]" for one in followed)
        self._tell(
            f'{{"context":{self.context},{self._job["observer"]},"parent":{_process(os.getpid())},'
            f'"waits":{_boolean(self._waits)},"answers":{answers},"channel":"{_plain(self.channel)}",'
            f'"listener":{"null" if listener is None else listener},"followed":[{files}],"pipes":{{{pipes}}}}}\n'
        )
        if self._command is not None:
            self._tell(f'{{"command":[{self._command[0]},"{self._command[1]}"]}}\n')
        kept = [hears, answers, *([] if listener is None else [listener]), *(one.descriptor for one in followed)]
        try:
            self._observer = _start(kept)
        except OSError:
            self._observer = 0
        finally:
            os.close(hears)
            os.close(answers)

    def _is_observed(self) -> bool:
        """Whether the observer is there."""
        try:
            return bool(self._observer) and os.waitpid(self._observer, os.WNOHANG)[0] == 0
        except ChildProcessError:
            # Where ended children are ignored, this one has ended.
            return False

    def _tell(self, line: str | bytes) -> None:
        """Write to the observer, which may be gone. What it has not read yet is far less than a pipe holds."""
        line = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
        with suppress(OSError):
            os.write(self._pipe, line)

    # --- On disk ----------------------------------------------------------------------------------------------------

    def _journal(self) -> str:
        """Return what is known when the run begins, in the form that `sidecar.journal` has."""
        observer = f",{_process(self._observer)}" if self._observer else ""
        return (
            f'{{"observation":{{"context":{self.context},"max_stages":{self._job["max_stages"]},'
            f'"phase_began_ns":{self._start_ns}}},"pid":{os.getpid()},"birth":"{birth(os.getpid())}",'
            f'"host":"{_plain(host_name())}","start_told":false,"paused":false,'
            f'"tellers":[{_process(os.getpid())}{observer}]}}'
        )

    def _write(self, suffix: str, data: bytes) -> None:
        with suppress(OSError):  # a full disk, or one that cannot be written; the observer has it
            descriptor = os.open(self.path(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
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
            os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103
            return f"{folder}/{name}"
        folder = f"/tmp/batchobs-{os.geteuid()}"  # noqa: S108  (it is ours, or refused)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)  # noqa: PTH102
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a folder that is ours alone")
        return f"{folder}/{name}"


def _start(kept: Sequence[int]) -> int:
    """Start the process of an observer that has these descriptors, and none of the command's; return its process id."""
    streams = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in range(3)]
    # Duplicated onto themselves, they stay open.
    duplicated = [(os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in kept]
    closed = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in inherited()]
    words = [sys.executable, "-I", _MAIN, ROLE, *map(str, kept)]
    return os.posix_spawn(
        sys.executable, words, os.environ, file_actions=[*streams, *closed, *duplicated], setsid=True, setsigmask=()
    )


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
