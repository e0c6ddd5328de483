"""What became of each row under each subject, beside what was promised."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batch_observability import schema
from tests.faults.play import PLAIN, Played, dag_id
from tests.faults.rows import ROWS, SUBJECTS, Row
from tests.live.evidence import RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.playground import Playground, Try

BUDGETS_MS = {"start": 15.0, "end": 20.0}
# Eight tasks share two processors, and whoever starts a process waits until that has had its turn. Longer than this is
# no such wait.
BLOCKED_MS = 2000.0


@dataclass(frozen=True)
class Span:
    """A run span, whoever made it."""

    outcome: str
    error: str


@dataclass(frozen=True)
class Hook:
    """The times of one hook in milliseconds, on the clock and of the processor, and how slow that was just then."""

    name: str
    took: float
    cpu: float
    slowness: float


@dataclass(frozen=True)
class Case:
    """
    A row under a subject.

    Attributes:
        tries: of the task, from Airflow's records.
        spans, ledger, lines: of each try, in the same order.
        started, finished: counted runs, and those that ended by outcome.
        seconds: from the end of the last try to arrive until its span was at the agent; None if one never was.
        hooks: of all tries.
        problem: what went wrong with playing it.
    """

    row: Row
    subject: str
    tries: tuple[Try, ...]
    spans: tuple[tuple[Span, ...], ...]
    ledger: tuple[Counter[str | None], ...]
    lines: tuple[int, ...]
    started: int
    finished: Counter[str]
    seconds: float | None
    hooks: tuple[Hook, ...]
    problem: str

    @property
    def states(self) -> str:
        """Airflow's states of the tries."""
        return ", ".join(one.state for one in self.tries)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome that was seen of each try; several in one word if there were several spans."""
        return tuple("+".join(span.outcome or "none" for span in spans) or "-" for spans in self.spans)

    @property
    def counted(self) -> str:
        """The counted runs: started, and finished by outcome."""
        finished = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.finished.items()))
        return f"{self.started} started, {finished or '0 finished'}"

    @property
    def wrong_for_all(self) -> list[str]:
        """What was promised and not kept, of the promises that every subject can keep; a line each."""
        promised = self.row.outcomes
        if self.problem:
            return [self.problem]
        if len(self.tries) != len(promised):
            return [f"{len(self.tries)} tries ({self.states}), expected {len(promised)}"]
        return [*self._wrong_spans(), *self._wrong_counts()]

    @property
    def wrong(self) -> list[str]:
        """What was promised and not kept; a line each."""
        return self.wrong_for_all or [*self._wrong_records(), *self._wrong_hooks()]

    def _wrong_spans(self) -> Iterator[str]:
        for one, spans, promised in zip(self.tries, self.spans, self.row.outcomes, strict=True):
            if len(spans) != 1:
                yield f"{len(spans)} run spans of try {one.number}, expected 1"
            elif spans[0].outcome != promised:
                yield f"outcome of try {one.number} is {spans[0].outcome or 'none'}, expected {promised}"
        if self.subject == "ours" and self.row.error and self.spans[-1] and self.spans[-1][0].error != self.row.error:
            yield f"error.type is {self.spans[-1][0].error!r}, expected {self.row.error!r}"

    def _wrong_counts(self) -> Iterator[str]:
        if self.started != len(self.tries) or self.finished != Counter(self.row.outcomes):
            yield f"counted {self.counted}"

    def _wrong_records(self) -> Iterator[str]:
        for one, rows, lines, promised in zip(self.tries, self.ledger, self.lines, self.row.outcomes, strict=True):
            if rows != {promised: 1}:
                yield f"ledger has {dict(rows) or 'no row'} of try {one.number}, expected one {promised}"
            if lines != 1:
                yield f"{lines} log lines of try {one.number}, expected 1"

    def _wrong_hooks(self) -> Iterator[str]:
        if not any(hook.name == "start" for hook in self.hooks):
            yield "the start hook was not timed"
        for hook in self.hooks:
            if hook.cpu > BUDGETS_MS[hook.name] * hook.slowness or hook.took > BLOCKED_MS:
                busy = f", which was {hook.slowness:.1f} times as slow as it may be" if hook.slowness > 1 else ""
                yield f"{hook.name} hook took {hook.took:.1f} ms, {hook.cpu:.1f} of the processor{busy}"


def cases(ground: Playground, played: Played) -> dict[tuple[str, str], Case]:
    """Returns what became of every row and subject, by name."""
    tries: dict[str, list[Try]] = defaultdict(list)
    for one in sorted(ground.tries(), key=lambda one: one.number):
        tries[one.dag_id].append(one)
    spans, ledger, lines, hooks = _spans(ground), ground.ledger(), _lines(ground), _hooks(ground)
    counts = _counts(ground)
    found = {}
    for row in ROWS:
        for subject in SUBJECTS[:1] if row.only_ours else SUBJECTS:
            dag = dag_id(row, subject)
            ids = [one.run_id for one in tries[dag]]
            found[row.name, subject] = Case(
                row,
                subject,
                tuple(tries[dag]),
                tuple(tuple(spans[subject, run_id]) for run_id in ids),
                tuple(ledger.get(run_id, Counter()) for run_id in ids),
                tuple(lines[run_id] for run_id in ids),
                counts[dag]["started"],
                Counter({key.partition(":")[2]: n for key, n in counts[dag].items() if key.startswith("finished:")}),
                _seconds(ground, played, subject, tries[dag]),
                tuple(hook for run_id in ids for hook in hooks[run_id]),
                played.problems.get(dag, ""),
            )
    return found


def _seconds(ground: Playground, played: Played, subject: str, tries: list[Try]) -> float | None:
    took = []
    for one in tries:
        died = ground.told(one.dag_id, one.number, "died")
        ended = played.back.get(one.dag_id) or (float(died) if died else one.ended)
        arrived = played.arrived.get((subject, one.run_id))
        if arrived is None or ended is None:
            return None
        took.append(max(arrived - ended, 0.0))
    return max(took, default=None)


def _spans(ground: Playground) -> dict[tuple[str, str], list[Span]]:
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in ground.agent.spans():
        meta = span.get("meta", {})
        error = meta.get("error.type", "")
        if span["name"] == RUN:
            found["ours", meta[schema.RUN_ID]].append(Span(meta[schema.OUTCOME], error))
        elif span["name"] == PLAIN:
            found["ddtrace", meta["run_id"]].append(Span(meta.get("outcome", ""), error))
    for span in ground.agent.otlp_spans(PLAIN):
        held = span["attributes"]
        found["otel", held["run_id"]].append(Span(held.get("outcome", ""), ""))
    return found


def _counts(ground: Playground) -> dict[str, Counter[str]]:
    """Returns the counted runs of each DAG: `started`, and `finished:<outcome>`."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for metric in ground.dogstatsd.metrics():
        if metric.name in (schema.RUN_STARTED.name, "job.started"):
            counts[metric.tag("dag_id") or ""]["started"] += round(float(metric.value))
        elif metric.name in (schema.RUN_FINISHED.name, "job.finished"):
            counts[metric.tag("dag_id") or ""][f"finished:{metric.tag('outcome')}"] += round(float(metric.value))
    for point in ground.agent.otlp_metrics():
        held = point["attributes"]
        if point["name"] == "job.started":
            counts[held["dag_id"]]["started"] += round(point["value"])
        elif point["name"] == "job.finished":
            counts[held["dag_id"]][f"finished:{held['outcome']}"] += round(point["value"])
    return counts


def _lines(ground: Playground) -> Counter[str]:
    """Returns how many records each run has in the log file."""
    path = ground.state / "logs" / "batch_models.jsonl"
    records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return Counter(r[schema.LOG_RUN_ID] for r in records if r[schema.LOG_EVENT] == schema.RUN_EVENT)


def _hooks(ground: Playground) -> dict[str, list[Hook]]:
    found: dict[str, list[Hook]] = defaultdict(list)
    for line in (ground.folder / "hooks.jsonl").read_text().splitlines():
        values = json.loads(line)
        hook = Hook(values["hook"], values["took"] * 1e3, values["cpu"] * 1e3, values["slowness"])
        found[values["run_id"]].append(hook)
    return found
