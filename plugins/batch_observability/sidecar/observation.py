"""
What is known of a run, put together from its frames. Plain state: no clock, no socket, no process.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from batch_observability import schema
from batch_observability.channel import Frame
from batch_observability.context import context_of
from batch_observability.ids import derive_span_id
from batch_observability.run import RunContext

_MAX_MEASUREMENTS = 500
_MAX_EVENTS = 100
# A sensor that is rescheduled each minute has hundreds; the waiting time counts all of them.
_MAX_PHASES = 50


@dataclass
class StageRecord:
    """A stage: Unix times in nanoseconds, `end_ns` None while it is open; `own` if the run did not open it."""

    span_id: int
    name: str
    parent: int
    start_ns: int
    end_ns: int | None = None
    error: dict[str, str] | None = None
    own: bool = False


@dataclass
class Observation:
    """
    A run so far.

    Attributes:
        rows: absolute totals by process, as `"<phase>.<pid>"`: a resumed run counts on in a new process.
        ended: the last frame, None while the run goes on.
        paused_ns: when it was deferred or rescheduled, None if it was not.
        phase, phase_began_ns: which of its processes it is in, from 1, and since when.
        waiting_s: seconds between its processes.
        asked_to_end: the frame that says that somebody asked the process to end.
        extended_s, extended_for: seconds that the run granted itself beyond what it promised, and why the last time.
        dropped: frames that were lost on the way, or were more than fits.
        dropped_logs: log lines that were to be sent, and were lost on the way.
    """

    context: RunContext
    max_stages: int
    stages: dict[int, StageRecord] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    phase: int = 1
    phase_began_ns: int = 0
    waiting_s: float = 0.0
    asked_to_end: Frame | None = None
    extended_s: float = 0.0
    extended_for: str = ""
    cpu_s: float = 0.0
    memory_peak: int = 0
    memory_limit: int | None = None
    dropped: int = 0
    dropped_logs: int = 0
    ended: Frame | None = None
    paused_ns: int | None = None

    @classmethod
    def begin(cls, start: Frame, max_stages: int) -> Observation:
        """Begin with a start frame."""
        return cls(context_of(start["context"]), max_stages, phase_began_ns=start["phase_ns"])

    def add(self, frame: Frame) -> None:
        """Take in one frame. What is not known is passed over: a newer task may meet an older sidecar."""
        try:
            self._add(frame)
        except (KeyError, TypeError):
            self.dropped += 1

    def _add(self, frame: Frame) -> None:
        match frame["t"]:
            case "stage":
                self._add_stage(frame)
            case "stage_end":
                if stage := self.stages.get(frame["id"]):
                    stage.end_ns, stage.error = frame["ts"], frame["error"]
            case "rows":
                process = f"{self.phase}.{frame['pid']}"
                before = self.rows.get(process, {})
                # Totals only grow: of two from a process that interrupted itself, the newer may come first.
                counts = {name: max(frame[name], before.get(name, 0)) for name in ("read", "written", "rejected")}
                self.rows[process] = counts
            case "measure":
                self._add_bounded(self.measurements, frame, _MAX_MEASUREMENTS)
            case "event":
                self._add_bounded(self.events, frame, _MAX_EVENTS)
            case "end":
                self.ended = frame
                self.dropped += frame.get("dropped", 0)
            case "pause":
                self.close_phase(frame["ts"])
                self.paused_ns = frame["ts"]
                self.dropped += frame.get("dropped", 0)
            case "extend_sla":
                self.extended_s += float(frame["by_s"])
                self.extended_for = str(frame["reason"])
                self._add_bounded(self.events, {"ts": frame["ts"], "text": frame["text"]}, _MAX_EVENTS)
            case "asked_to_end":
                self.asked_to_end = frame

    def _add_stage(self, frame: Frame) -> None:
        if len(self.stages) >= self.max_stages:
            self.dropped += 1
            return
        self.stages[frame["id"]] = StageRecord(frame["id"], frame["name"], frame["parent"], frame["ts"])

    def _add_bounded(self, entries: list[dict[str, Any]], frame: Frame, most: int) -> None:
        if len(entries) >= most:
            self.dropped += 1
        else:
            entries.append({key: value for key, value in frame.items() if key != "t"})

    @property
    def total_rows(self) -> dict[str, int] | None:
        """Rows read, written and rejected by all processes of the run; None if it never said."""
        if not self.rows:
            return None
        return {name: sum(counts[name] for counts in self.rows.values()) for name in ("read", "written", "rejected")}

    @property
    def innermost_open_stage(self) -> StageRecord | None:
        """The stage that the run is in."""
        return next((s for s in reversed(self.stages.values()) if s.end_ns is None and not s.own), None)

    @property
    def failed_stage(self) -> StageRecord | None:
        """The stage that the run failed in, once it has."""
        if still_open := self.innermost_open_stage:
            return still_open
        # Of nested stages that end with one error, the innermost ends first and began last.
        return next((stage for stage in reversed(self.stages.values()) if stage.error), None)

    def close_phase(self, end_ns: int | None, error: dict[str, str] | None = None) -> None:
        """Make a stage of the process that the run was in, with what it did there; None if it died."""
        if self.phase > _MAX_PHASES:
            return
        phase = self._own_stage(schema.PHASE_STAGE, self.phase_began_ns)
        phase.end_ns, phase.error = end_ns, error
        for stage in self.stages.values():
            if stage.start_ns >= self.phase_began_ns and stage.parent not in self.stages:
                stage.parent = phase.span_id
        # The outermost comes first.
        self.stages = {phase.span_id: phase, **self.stages}

    def _own_stage(self, name: str, start_ns: int) -> StageRecord:
        span_id = derive_span_id(schema.STAGE, self.context.span_id, name, self.phase)
        return StageRecord(span_id, name, 0, start_ns, own=True)

    def state(self) -> dict[str, Any]:
        """Return all that is known, as plain values, for who goes on with the run."""
        return asdict(self)

    def resume(self, state: dict[str, Any]) -> None:
        """
        Go on from what was known of the run: after a pause in a new phase, else where its sidecar was lost.

        Raises:
            ValueError, KeyError, TypeError: if it is no such state.
        """
        earlier = restore(state)
        for name in (
            "stages",
            "rows",
            "measurements",
            "events",
            "cpu_s",
            "memory_peak",
            "dropped",
            "dropped_logs",
            "waiting_s",
            "extended_s",
            "extended_for",
        ):
            setattr(self, name, getattr(earlier, name))
        start = {"start_ns": earlier.context.start_ns, "due_ns": earlier.context.due_ns}
        if start["due_ns"] is None:
            # It may not have been known in time.
            del start["due_ns"]
        self.context = context_of({**asdict(self.context), **start})
        self.phase = earlier.phase
        if earlier.paused_ns is None:
            self.phase_began_ns, self.asked_to_end = earlier.phase_began_ns, earlier.asked_to_end
            return
        if self.phase <= _MAX_PHASES:
            waiting = self._own_stage(schema.WAITING_STAGE, earlier.paused_ns)
            waiting.end_ns = max(self.phase_began_ns, earlier.paused_ns)
            self.stages[waiting.span_id] = waiting
        self.phase += 1
        self.waiting_s += max(self.phase_began_ns - earlier.paused_ns, 0) / 1e9


def restore(state: dict[str, Any]) -> Observation:
    """
    Make an observation from what `Observation.state` gave, also after a way through JSON.

    Raises:
        ValueError, KeyError, TypeError: if it is no such state.
    """
    if not isinstance(state, dict):
        raise TypeError("not the state of a run")
    known = {f.name for f in fields(Observation)}
    values = {name: value for name, value in state.items() if name in known}
    stages = (StageRecord(**stage) for stage in values.pop("stages", {}).values())
    context = context_of(values.pop("context"))
    return Observation(context, values.pop("max_stages"), {stage.span_id: stage for stage in stages}, **values)
