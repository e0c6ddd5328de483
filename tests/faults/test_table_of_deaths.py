"""Every way to die on a real Airflow: one outcome, one span, one row, one line; nothing twice, nothing lost."""

from __future__ import annotations

import pytest

from tests.faults.cells import BUDGETS_MS, Case, cases
from tests.faults.page import paragraph, table
from tests.faults.play import play
from tests.faults.rows import ROWS, SUBJECTS

# The first test also pays for the start of an Airflow and for all that dies on it.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def deaths(ground, page):
    found = cases(ground, play(ground))
    impossible = set() if ground.oom_group else {"out_of_memory"}
    ours = {row.name: found[row.name, "ours"] for row in ROWS}
    lines = [
        (row.title, *(["not possible here"] * (len(HEAD) - 1))) if row.name in impossible else _line(ours[row.name])
        for row in ROWS
    ]
    page.add("What becomes of a run", table(HEAD, lines), paragraph(LEGEND))
    played = {key: case for key, case in found.items() if case.row.name not in impossible}
    compared = [
        (row.title, *(_word(played.get((row.name, subject))) for subject in SUBJECTS))
        for row in ROWS
        if row.name not in impossible
    ]
    kept = [[not case.wrong_for_all for case in played.values() if case.subject == subject] for subject in SUBJECTS]
    total = ("kept", *(f"{sum(each)} of {len(each)}" for each in kept))
    page.add(
        "Beside plain ddtrace and plain OpenTelemetry", table(COMPARED, [*compared, total]), paragraph(PLAIN_LEGEND)
    )
    return ours


HEAD = ("the task", "Airflow", "outcome", "span", "ledger", "counts", "log", "after", "hooks", "kept")
LEGEND = f"""
*Airflow*: its state of each try. *Outcome*: on the run span. *Span, ledger, log*: how many there are of each try;
one is right. *Counts*: `run.started`, and `run.finished` by outcome, as counted at the DogStatsD intake. *After*:
seconds from the end in Airflow, or from the death, until the span was at the agent, seen at most 0.5 s late; where the
Agent was away, from its return. *Hooks*: milliseconds that the start and the end hook took of the processor in the task
process ({BUDGETS_MS["start"]:.0f} and {BUDGETS_MS["end"]:.0f} are allowed, times what the
processor was slower just then at the same kind of work): eight tasks run at once here, for the time on the clock see
below. A task that is killed has no end hook.
"""
COMPARED = ("the task", *SUBJECTS)
PLAIN_LEGEND = """
Outcomes on the spans, and the counted runs, where they are not what was promised. ddtrace and OpenTelemetry are used as
their documentation says, by a careful user: a span around the work in the task process, two counters, and a flush at
the end. Their promises are judged by the same code, but for ledger, log file and hooks, which they do not have.
"""


def _line(case: Case) -> tuple[str, ...]:
    hooks = [max((h.cpu for h in case.hooks if h.name == name), default=None) for name in BUDGETS_MS]
    return (
        case.row.title,
        case.states,
        ", ".join(case.outcomes),
        _numbers(len(spans) for spans in case.spans),
        _numbers(rows.total() for rows in case.ledger),
        case.counted,
        _numbers(case.lines),
        "-" if case.seconds is None else f"{case.seconds:.1f} s",
        " / ".join("-" if value is None else f"{value:.1f}" for value in hooks),
        "no" if case.wrong else "yes",
    )


def _numbers(numbers) -> str:
    return ", ".join(map(str, numbers))


def _word(case: Case | None) -> str:
    if case is None:
        return "has none"
    seen = ", ".join(case.outcomes)
    return f"no: {seen}; {case.counted}" if case.wrong_for_all else f"yes: {seen}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_death_keeps_every_promise(deaths, ground, row):
    if row.name == "out_of_memory" and ground.oom_group is None:
        pytest.skip("this host does not let us make a memory cgroup")
    wrong = deaths[row.name].wrong
    assert not wrong, f"{row.title}: {'; '.join(wrong)}"


@pytest.mark.usefixtures("deaths")
def test_nothing_was_dropped(ground):
    assert ground.dogstatsd.metrics("batch_model.telemetry.dropped") == []


@pytest.mark.usefixtures("deaths")
def test_nothing_waits_any_more(ground):
    assert ground.spooled() == []
