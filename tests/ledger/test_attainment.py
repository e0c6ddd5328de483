"""How models stand: the same figures as a plain calculation over the same runs and breaches."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from batch_observability.objective import OBJECTIVES
from tests.ledger.runs import MODEL, declared, finished, promised, recovered, run, started

FAILED = ("failed", "timed_out", "killed", "lost")
OUTCOMES = ("success", *FAILED, "retrying", "skipped", "cancelled")
NAMES = ("churn", "sales", "risk/daily", "never")


def model(name):
    return {**MODEL, "name": name, "owner": f"team-{len(name)}"}


def history(seed, size):
    """Return runs that ended, each with what it kept; runs that are open; and breaches with when they recovered."""
    random_ = random.Random(seed)
    ended, opened, breaches = [], [], []
    for number in range(size):
        name, start_ns = random_.choice(NAMES[:3]), random_.randrange(1000)
        slot = {"dag_id": name, "dag_run_id": f"{number // 2}", "try_number": 1 + number % 2}
        of = run(f"run-{number}", model=model(name), start_ns=start_ns * size + number, **slot)
        if random_.random() < 0.1:
            opened.append(of)
        else:
            outcome = random_.choice(("success", "success", *OUTCOMES))
            kept = random_.choice((0, 1, 5, 128, 255, random_.randrange(256)))
            ended.append(finished(of=of, outcome=outcome, kept=kept, end_ns=of.start_ns + random_.randrange(9 * size)))
        if random_.random() < 0.3:
            objective, time_ns = random_.choice(OBJECTIVES[2:4]), random_.randrange(1000 * size)
            breaches.append((f"key-{number}", name, objective, time_ns, random_.random() < 0.5))
    return ended, opened, breaches


def write(ledger, ended, opened, breaches):
    """Write a history, in an order of its own."""
    changes = [*ended, *(started(of.run_id, start_ns=of.start_ns, **_place(of)) for of in opened)]
    random.Random(0).shuffle(changes)
    ledger.apply_all(changes)
    for key, name, objective, time_ns, is_over in breaches:
        values = {"objective": objective, "model": model(name), "resource": key, "dag_run_id": ""}
        assert ledger.apply(promised(key, time_ns=time_ns, **values))
        if is_over:
            whose = {"model_name": name, "objective": objective, "resource": key, "token": key}
            assert ledger.apply(recovered(before_ns=time_ns + 1, **whose))
    ledger.apply(declared(dag_id="never", model=model("never")))


def _place(of):
    return {name: getattr(of, name) for name in ("model", "dag_id", "dag_run_id", "try_number")}


def for_good(ended, opened):
    """Return what ended and was not tried again; the try before has the number before, of the same task."""
    tries = {(of.dag_id, of.dag_run_id, of.try_number) for of in [*(one.run for one in ended), *opened]}
    return [one for one in ended if (one.run.dag_id, one.run.dag_run_id, one.run.try_number + 1) not in tries]


def figures(name, since_ns, recent_ns, told):
    """Return what is to be said of a model, by a plain calculation."""
    ended, opened, breaches = told
    mine = [one for one in ended if one.run.model["name"] == name]
    final = [one for one in for_good(ended, opened) if one.run.model["name"] == name]
    runs = [*(one.run for one in mine), *(of for of in opened if of.model["name"] == name)]
    newest = max(runs, key=lambda of: of.start_ns, default=None)
    kept, broken = Counter(), Counter()
    for one in mine:
        if one.end_ns >= since_ns:
            kept.update(objective for bit, objective in enumerate(OBJECTIVES) if one.kept & 1 << bit)
    broken.update(objective for _, of, objective, time_ns, _ in breaches if of == name and time_ns >= since_ns)
    open_ = [(-time_ns, key) for key, of, _, time_ns, is_over in breaches if of == name and not is_over]
    return {
        "definition": model(name),
        "kept": dict(kept),
        "broken": dict(broken),
        "succeeded": sum(one.outcome == "success" and one.end_ns >= since_ns for one in mine),
        "failed": sum(one.outcome in FAILED and one.end_ns >= since_ns for one in final),
        "recent_succeeded": sum(one.outcome == "success" and one.end_ns >= recent_ns for one in mine),
        "recent_failed": sum(one.outcome in FAILED and one.end_ns >= recent_ns for one in final),
        "open_runs": sum(of.model["name"] == name for of in opened),
        "last_start_ns": newest.start_ns if newest else None,
        "last_outcome": next((one.outcome for one in mine if one.run == newest), None),
        "last_success_ns": max((one.end_ns for one in mine if one.outcome == "success"), default=None),
        "open": [key for _, key in sorted(open_)],
    }


def said(one):
    names = [name for name in vars(one) if name not in ("name", "next_due_ns", "state", "open")]
    return {**{name: getattr(one, name) for name in names}, "open": [row.key for row in one.open]}


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_a_plain_calculation(ledger, seed):
    told = history(seed, 160)
    write(ledger, *told)
    for since_ns, recent_ns in ((0, 156_000), (80_000, 152_000), (200_000, 200_000)):
        found = ledger.attainment(since_ns, recent_ns)
        assert [one.name for one in found] == sorted(NAMES)
        for one in found:
            assert said(one) == figures(one.name, since_ns, recent_ns, told)
            assert ledger.attainment(since_ns, recent_ns, model=one.name) == [one]


@pytest.mark.parametrize("seed", range(3))
def test_the_rates_are_those_of_a_plain_calculation(ledger, seed):
    ended, opened, breaches = history(seed, 160)
    write(ledger, ended, opened, breaches)
    since = {"churn": 0, "sales": 40_000, "risk/daily": 156_000, "never": 0, "unknown": 0}
    expected = {}
    for name, since_ns in since.items():
        final = [one for one in for_good(ended, opened) if one.run.model["name"] == name and one.end_ns >= since_ns]
        failures = [one.end_ns for one in final if one.outcome in FAILED]
        mine = [one for one in ended if one.run.model["name"] == name and one.end_ns >= since_ns]
        succeeded = sum(one.outcome == "success" for one in mine)
        expected[name] = (succeeded, len(failures), max(failures, default=None))
    assert ledger.success_rates(since) == expected
    assert {name: ledger.success_rate(name, since_ns) for name, since_ns in since.items()} == expected
    assert ledger.success_rates({}) == {}


@pytest.mark.parametrize("seed", range(2))
def test_the_newest_successes_are_those_of_a_plain_calculation(ledger, seed):
    ended, opened, breaches = history(seed, 160)
    write(ledger, ended, opened, breaches)
    found = ledger.newest_successes()
    for name in NAMES[:3]:
        starts = [of.start_ns for of in [*(one.run for one in ended), *opened] if of.model["name"] == name]
        newest = max(one.end_ns for one in ended if one.run.model["name"] == name and one.outcome == "success")
        assert found[name] == (model(name), min(starts), newest)
    assert found["never"] == (model("never"), 50, None)


@pytest.mark.thorough
def test_rates_of_more_models_than_fit_in_a_statement(ledger):
    names = [f"model-{number}" for number in range(1200)]
    ledger.apply_all([finished(of=run(name, model=model(name), dag_run_id=name), end_ns=7) for name in names])
    assert ledger.success_rates(dict.fromkeys(names, 7)) == dict.fromkeys(names, (1, 0, None))
    assert ledger.success_rates(dict.fromkeys(names, 8)) == dict.fromkeys(names, (0, 0, None))
    assert len(ledger.attainment(0, 0)) == 1200


def test_the_models_of_an_owner_are_those_that_are_its_own_now(ledger):
    for number, name in enumerate(NAMES):
        ledger.apply(finished(of=run(name, model=model(name), start_ns=number, dag_run_id=name)))
        ledger.apply(promised(name, model=model(name)))
    ledger.apply(started("newer", model={**model("churn"), "owner": "growth"}, dag_run_id="newer"))
    assert [one.name for one in ledger.attainment(0, 0, owner="team-5")] == ["never", "sales"]
    assert [one.name for one in ledger.attainment(0, 0, owner="growth")] == ["churn"]
    assert ledger.attainment(0, 0, model="churn", owner="team-5") == []
    assert ledger.attainment(0, 0, model="unknown") == []


def test_a_model_is_due_when_the_first_of_its_tasks_is(ledger):
    for task_id, next_due_ns, state in (
        ("a", 9, ""),
        ("b", 7, "paused"),
        ("c", None, "paused"),
        ("d", 8, "import error"),
    ):
        ledger.apply(declared(task_id=task_id, next_due_ns=next_due_ns, state=state))
    (one,) = ledger.attainment(0, 0)
    assert (one.next_due_ns, one.state) == (7, "import error, paused")


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_runs_are_counted_in_an_index_and_never_read(ledger):
    """A million rows would take many times as long; what SQLite does is in its plan."""
    from sqlalchemy import event

    plans = []

    def explain(connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith(("SELECT", "WITH")):
            plan = connection.connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in plan)

    ledger.apply(finished())
    event.listen(ledger._engine, "before_cursor_execute", explain)
    ledger.attainment(0, 0)
    ledger.success_rates({"churn": 0})
    ledger.newest_successes()
    of_runs = {plan.partition(" runs ")[2] for plan in plans if " runs " in plan}
    used = {plan.split()[-1] if "(" not in plan else plan.split(" (")[0].split()[-1] for plan in of_runs}
    assert used == {"runs_judged", "runs_failed", "runs_of_model", "runs_open"}
    assert all("COVERING" in plan or "runs_open" in plan for plan in of_runs)
