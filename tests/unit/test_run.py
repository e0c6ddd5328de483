"""What a run says to its sidecar: rows, measurements, events, and the fields of its log lines."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from fractions import Fraction

import pytest

from batch_observability import Run, current_run, schema
from batch_observability.channel import Channel
from batch_observability.run import RunContext, log_fields, set_current_run
from batch_observability.sidecar.observation import Observation
from batch_observability.usage import process_usage
from tests.forked import in_child
from tests.unit.conftest import SECRET, run_context

LOG_FIELDS = {
    "dd.trace_id": "0af7651916cd43dd8448eb211c80319c",
    "dd.span_id": "67667974448284343",
    "dd.service": "flights",
    "dd.env": "test",
    "dd.version": "3",
    "batch_model.name": "flight-delay",
    "batch_model.run_id": "0199c0de-0000-7000-8000-000000000001",
    "airflow.dag_id": "flights",
    "airflow.task_id": "score",
    "airflow.dag_run.run_id": "manual__2013-02-01",
    "airflow.task_instance.try_number": 1,
    "airflow.task_instance.map_index": -1,
    "airflow.dagRun.dag_id": "flights",
    "airflow.dagRun.run_id": "manual__2013-02-01",
    "airflow.task.task_id": "score",
}


# --- The current run ---------------------------------------------------------------------------------------------


def test_the_run_is_the_current_one_in_all_threads(wire):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_run).result() is wire.run
    assert current_run() is wire.run
    set_current_run(None)
    assert not current_run().active


def test_a_run_knows_its_ids(wire):
    assert wire.run.active
    assert wire.run.run_id == "0199c0de-0000-7000-8000-000000000001"
    assert wire.run.trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_outside_of_a_run_the_same_calls_do_nothing():
    run = current_run()
    with run.stage("load") as stage:
        run.rows(read=1, written=2, rejected=3)
        run.measure("mae", 14.2, unit="minute")
        run.event("stale")
        assert run.current_stage is None
        assert stage.duration_s >= 0
    assert not run.active
    assert (run.run_id, run.trace_id, run.log_fields(), stage.span_id) == ("", "", {}, 0)


def test_an_inert_stage_lets_errors_pass():
    with pytest.raises(LookupError, match="lost"), current_run().stage("load"):
        raise LookupError("lost")


# --- Rows --------------------------------------------------------------------------------------------------------


def test_rows_are_told_as_totals_so_that_a_lost_frame_is_made_up_for(wire):
    wire.run.rows(read=100)
    wire.run.rows(read=20, written=90, rejected=10)
    wire.run.rows()
    totals = [{key: frame[key] for key in ("read", "written", "rejected", "pid")} for frame in wire.frames("rows")]
    first, second = ({"read": 100, "written": 0, "rejected": 0}, {"read": 120, "written": 90, "rejected": 10})
    assert totals == [{**total, "pid": os.getpid()} for total in (first, second, second)]


def test_rows_of_many_threads_add_up(wire):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: wire.run.rows(read=1, written=2), range(400)))
    last = wire.frames("rows")[-1]
    assert (last["read"], last["written"]) == (400, 800)


def test_rows_of_threads_are_told_in_the_order_in_which_they_grow(wire):
    """The last frame is what counts: an older total may not overtake a newer one."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: wire.run.rows(read=1), range(400)))
    told = [frame["read"] for frame in wire.frames("rows")]
    assert told == list(range(1, 401))


def test_rows_of_forked_children_are_told_by_process(wire):
    """Each counts from zero, and the sidecar adds up: nothing is counted twice, or for a parent that has moved on."""
    wire.run.rows(read=100)
    children = [in_child(lambda: (wire.run.rows(read=5), current_run().rows(read=2))) for _ in range(2)]
    wire.run.rows(read=1)
    last = {frame["pid"]: frame["read"] for frame in wire.frames("rows")}
    assert last == {os.getpid(): 101, children[0]: 7, children[1]: 7}


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of Python 3.12: that is what is tested
def test_a_child_that_was_forked_while_a_thread_counted_may_count(wire):
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with wire.run._lock:
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = in_child(lambda: wire.run.rows(read=5))
    let_go.set()
    thread.join()
    assert [(frame["pid"], frame["read"]) for frame in wire.frames("rows")] == [(child, 5)]


def test_rows_may_be_counted_while_rows_are_counted(wire):
    """As a signal handler or a finalizer of user code does, in the same thread, at any moment."""

    class Interrupted(Channel):
        def send(self, frame) -> None:
            if frame["read"] == 1:
                signal.raise_signal(signal.SIGUSR1)
            super().send(frame)

    def count() -> None:
        # A child, which a deadlock ends within a second.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 1)
        signal.signal(signal.SIGUSR1, lambda *_: run.rows(read=10))
        run.rows(read=1)

    run = Run(run_context(), Interrupted(wire.channel._socket))
    in_child(count)
    observed = Observation(run.context, max_stages=1)
    for frame in wire.frames("rows"):
        observed.add(frame)
    assert observed.total_rows["read"] == 11


@pytest.mark.parametrize("number", [7, 7.0, True + 6, Fraction(7), "7"])
def test_any_whole_number_is_a_number_of_rows(wire, number):
    """As int() reads it: of numpy, too."""
    wire.run.rows(read=number)
    assert wire.frames("rows")[-1]["read"] == 7


@pytest.mark.parametrize(
    "number",
    [
        1.5,
        float("nan"),
        float("inf"),
        None,
        "many",
    ],
)
def test_what_is_no_whole_number_is_no_number_of_rows(wire, number):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        wire.run.rows(read=number)
    assert wire.frames() == []


@pytest.mark.parametrize("name", ["read", "written", "rejected"])
def test_a_number_of_rows_is_not_negative(wire, name):
    for run in (wire.run, Run()):
        with pytest.raises(ValueError, match=rf"rows\({name}=-1\): a number of rows is 0 or more"):
            run.rows(**{"read": 1, name: -1})
    wire.run.rows()
    assert wire.frames("rows")[-1]["read"] == 0


# --- Measurements ------------------------------------------------------------------------------------------------


def test_a_measurement_is_told(wire):
    before = time.time_ns()
    wire.run.measure("mae", 14.2, unit="minute")
    (frame,) = wire.frames()
    assert {key: frame[key] for key in ("t", "name", "value", "unit")} == {
        "t": "measure",
        "name": "mae",
        "value": 14.2,
        "unit": "minute",
    }
    assert before - 1_000_000 <= frame["ts"] <= time.time_ns() + 1_000_000


@pytest.mark.parametrize("value", [3, True, Fraction(3), "3"])
def test_any_number_is_a_measurement(wire, value):
    wire.run.measure("n", value)
    assert wire.frames("measure")[0]["value"] == float(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "-inf"])
def test_a_measurement_is_finite(wire, value):
    for run in (wire.run, Run()):
        with pytest.raises(ValueError, match=r"measure\('mae', .*\): not a finite number"):
            run.measure("mae", value)
    assert wire.frames() == []


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_a_measurement_has_a_name(wire, name):
    for run in (wire.run, Run()):
        with pytest.raises(ValueError, match="the name is empty"):
            run.measure(name, 1)


def test_names_and_units_of_measurements_have_a_limit(wire):
    wire.run.measure("n" * 1000, 1, unit="u" * 1000)
    (frame,) = wire.frames()
    assert (len(frame["name"]), len(frame["unit"])) == (100, 50)


# --- Events ------------------------------------------------------------------------------------------------------


def test_an_event_is_told_with_the_stage_it_happened_in(wire):
    wire.run.event("outside")
    with wire.run.stage("load") as stage:
        wire.run.event("inside")
    assert [(frame["text"], frame["stage"]) for frame in wire.frames("event")] == [
        ("outside", 0),
        ("inside", stage.span_id),
    ]


def test_the_text_of_an_event_has_a_limit(wire):
    wire.run.event("x" * 10_000)
    assert wire.frames()[0]["text"] == "x" * 4000


def test_an_event_may_be_anything_that_has_a_text(wire):
    wire.run.event(LookupError("lost"))
    assert wire.frames()[0]["text"] == "lost"


# --- Secrets -----------------------------------------------------------------------------------------------------


def test_secrets_are_masked_in_events(wire):
    wire.run.event(f"logged in with {SECRET}")
    assert wire.frames()[0]["text"] == "logged in with ***"


def test_a_secret_at_the_limit_is_masked_whole(wire):
    """Masked first and cut then: half a secret is none that a masker knows."""
    wire.run.event("x" * 3996 + SECRET)
    assert wire.frames()[0]["text"] == "x" * 3996 + "***"


def test_secrets_are_masked_in_errors(wire):
    def fail(password):
        raise LookupError(f"no user for {password}")

    with pytest.raises(LookupError, match=SECRET), wire.run.stage("load"):
        fail(SECRET)
    (frame,) = wire.frames("stage_end")
    assert frame["error"]["message"] == "no user for ***"
    assert SECRET not in json.dumps(frame)


def test_secrets_are_masked_in_names(wire):
    with wire.run.stage(f"load {SECRET}"):
        wire.run.measure(f"mae {SECRET}", 1, unit=SECRET)
    assert SECRET not in json.dumps(wire.frames())


# --- Errors ------------------------------------------------------------------------------------------------------


def test_an_error_is_told_with_type_message_and_traceback(wire):
    try:
        raise LookupError("lost")
    except LookupError as error:
        told = wire.run.describe(error)
    assert (told["type"], told["message"]) == ("LookupError", "lost")
    assert told["stack"].startswith("Traceback (most recent call last):")
    assert told["stack"].endswith("LookupError: lost\n")


def test_no_error_is_none(wire):
    assert wire.run.describe(None) is None


def test_an_error_may_be_text_only(wire):
    """As Airflow's scheduler has it."""
    assert wire.run.describe(f"lost {SECRET}") == {"type": "Error", "message": "lost ***", "stack": ""}


def test_errors_have_a_limit_and_keep_their_end(wire):
    def deeper(depth: int) -> None:
        if depth == 0:
            raise LookupError("x" * 20_000)
        deeper(depth - 1)

    try:
        deeper(50)
    except LookupError as error:
        told = wire.run.describe(error)
    assert len(told["message"]) == 4000
    assert len(told["stack"]) == 12_000
    assert told["stack"].endswith("x\n")


class Unprintable(Exception):  # noqa: N818  (the name says what it is)
    """Cannot say what happened: its message needs something that is gone."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_printed_is_told(wire):
    """Else the run would end without a word, as if its process had been killed."""
    told = wire.run.describe(Unprintable())
    assert told["type"] == "Unprintable"


# --- Log fields --------------------------------------------------------------------------------------------------


def test_log_lines_of_a_run_carry_its_fields(wire):
    assert wire.run.log_fields() == LOG_FIELDS
    assert set(LOG_FIELDS) <= set(schema.LOG_FIELDS)


def test_log_lines_of_a_stage_carry_it(wire):
    with wire.run.stage("load") as load:
        assert wire.run.log_fields() == {
            **LOG_FIELDS,
            "dd.span_id": str(load.span_id),
            "batch_model.stage": "load",
        }
        with wire.run.stage("parse") as parse:
            assert wire.run.log_fields()["dd.span_id"] == str(parse.span_id)
            assert wire.run.log_fields()["batch_model.stage"] == "parse"
        assert wire.run.log_fields()["batch_model.stage"] == "load"
    assert wire.run.log_fields() == LOG_FIELDS


def test_log_lines_of_another_thread_carry_the_stage_of_the_main_one(wire):
    """FACTS: contextvars miss the threads of user code."""
    with ThreadPoolExecutor(1) as pool, wire.run.stage("load"):
        assert pool.submit(wire.run.log_fields).result()["batch_model.stage"] == "load"


def test_what_is_not_known_is_no_field():
    fields = log_fields(run_context(env="", attributes={}))
    assert "dd.env" not in fields
    assert not {name for name in fields if name.startswith("airflow.")}


def test_attributes_that_are_no_log_fields_are_not_in_log_lines():
    context = run_context()
    assert log_fields(replace(context, attributes={**context.attributes, "airflow.operator": "X"})) == LOG_FIELDS


# --- Frames of all kinds -----------------------------------------------------------------------------------------


def test_times_are_unix_nanoseconds_that_do_not_run_backwards(wire, mocker):
    """Whatever the system's clock does during a run."""
    before = time.time_ns()
    wire.run.event("before")
    mocker.patch("time.time_ns", return_value=0)
    mocker.patch("time.time", return_value=0.0)
    wire.run.event("after")
    first, second = (frame["ts"] for frame in wire.frames())
    assert before - 1_000_000_000 < first <= second < before + 60_000_000_000


def test_a_run_without_its_sidecar_goes_on(wire):
    wire.sidecar.close()
    for _ in range(3):
        with wire.run.stage("load"):
            wire.run.rows(read=1)
            wire.run.measure("mae", 1)
            wire.run.event("x")
    assert wire.channel.broken


@pytest.mark.usefixtures("outside_pytest")
def test_a_mistake_in_user_code_is_logged_once_and_does_not_fail_the_task(wire, caplog):
    for _ in range(3):
        assert wire.run.rows(read=-1) is None
        assert wire.run.measure("mae", float("nan")) is None
        assert wire.run.measure("mae", "high") is None
    assert [record.getMessage().split()[1] for record in caplog.records] == ["Run.rows", "Run.measure"]
    assert "a number of rows is 0 or more" in caplog.text
    assert wire.frames() == []


@pytest.mark.usefixtures("outside_pytest")
def test_a_stage_whose_error_cannot_be_printed_ends(wire):
    with pytest.raises(Unprintable), wire.run.stage("load"):
        raise Unprintable
    assert len(wire.frames("stage_end")) == 1


@pytest.mark.usefixtures("outside_pytest")
def test_a_broken_mask_does_not_fail_the_task_and_lets_nothing_out(ends, caplog):
    def broken(_text):
        raise RuntimeError("the masker is broken")

    run = Run(run_context(), Channel(ends[0]), broken)
    run.event(SECRET)
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        ends[1].recv(1)
    assert "Run.event failed" in caplog.text


def test_a_context_survives_the_way_to_the_sidecar():
    context = run_context(linked_spans=((1, 2),), parent_id=2**63, due_ns=1, resumed=True)
    values = json.loads(json.dumps(asdict(context)))
    assert RunContext(**{**values, "linked_spans": tuple(map(tuple, values["linked_spans"]))}) == context


def test_a_process_knows_its_own_usage():
    usage = process_usage()
    assert usage["cpu_s"] > 0
    assert usage["memory_peak"] > 1_000_000
    assert process_usage()["cpu_s"] >= usage["cpu_s"]
