"""
What is known of a run, put together from its frames. Plain state: no clock, no socket, no process.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from batch_observability.channel import Frame
from batch_observability.run import RunContext

_MAX_MEASUREMENTS = 500
_MAX_EVENTS = 100


@dataclass
class StageRecord:
    """A stage: Unix times in nanoseconds, `end_ns` None while it is open."""

    span_id: int
    name: str
    parent: int
    start_ns: int
    end_ns: int | None = None
    error: dict[str, str] | None = None


@dataclass
class Observation:
    """
    A run so far.

    Attributes:
        rows: absolute totals by process, as `"<phase>.<pid>"`: a resumed run counts on in a new process.
        ended: the last frame, None while the run goes on.
        paused_ns: when it was deferred or rescheduled, None if it was not.
        dropped: frames that were lost on the way, or were more than fits.
    """

    context: RunContext
    max_stages: int
    stages: dict[int, StageRecord] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    phase: int = 1
    cpu_s: float = 0.0
    memory_peak: int = 0
    dropped: int = 0
    ended: Frame | None = None
    paused_ns: int | None = None

    @classmethod
    def begin(cls, start: Frame, max_stages: int) -> Observation:
        """Begin with a start frame."""
        return cls(_context(start["context"]), max_stages)

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
                self.paused_ns = frame["ts"]
                self.dropped += frame.get("dropped", 0)

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
        return next((stage for stage in reversed(self.stages.values()) if stage.end_ns is None), None)

    def to_json(self) -> str:
        """Write the state of a run that pauses."""
        return json.dumps(asdict(self))

    def resume(self, text: str) -> None:
        """
        Go on from the state that an earlier phase of the run wrote.

        Raises:
            ValueError, KeyError, TypeError: if the text is no such state.
        """
        state = json.loads(text)
        if not isinstance(state, dict):
            raise TypeError("not the state of a run")
        earlier = Observation(_context(state.pop("context")), state.pop("max_stages"))
        stages = {stage["span_id"]: StageRecord(**stage) for stage in state.pop("stages").values()}
        for name in ("rows", "measurements", "events", "cpu_s", "memory_peak", "dropped"):
            setattr(self, name, state[name])
        self.stages, self.phase = stages, state["phase"] + 1
        start = {"start_ns": earlier.context.start_ns, "due_ns": earlier.context.due_ns}
        self.context = _context({**asdict(self.context), **start})


def _context(values: dict[str, Any]) -> RunContext:
    known = {f.name for f in fields(RunContext)}
    values = {name: value for name, value in values.items() if name in known}
    return RunContext(**{**values, "linked_spans": tuple(map(tuple, values.get("linked_spans", ())))})
