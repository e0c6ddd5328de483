"""Lines find their trace: whichever thread, task, process or tracer's span they come from."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from batch_observability.logs import bind, get_logger, unbind
from batch_observability.logs.correlation import add_run_fields, follow
from batch_observability.run import set_current_run

log = get_logger("correlation")


def place(record) -> tuple[str, str | None]:
    """Return span id and stage of a line."""
    return record["dd.span_id"], record.get("batch_model.stage")


def test_a_line_is_the_innermost_stages(written, run):
    with run.stage("load") as load, run.stage("parse") as parse:
        log.info("ours")
        logging.getLogger("theirs").info("theirs")
    with load:
        log.info("outer")
    log.info("run")
    ours, theirs, outer, of_run = written.records()
    assert place(ours) == place(theirs) == (str(parse.span_id), "parse")
    assert place(outer) == (str(load.span_id), "load")
    assert place(of_run) == (str(run.context.span_id), None)
    assert {record["dd.trace_id"] for record in (ours, theirs, outer, of_run)} == {run.trace_id}


def test_without_a_run_there_are_no_fields_of_one(written):
    log.info("alone")
    assert set(written.record()) == {"timestamp", "level", "logger", "event"}


def test_threads_that_opened_no_stage_are_in_the_main_one(written, run):
    with run.stage("load") as load, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: log.info("part", number=number), range(3)))
        thread = threading.Thread(target=logging.getLogger("theirs").warning, args=("thread",))
        thread.start()
        thread.join()
    assert [place(record) for record in written.records()] == [(str(load.span_id), "load")] * 4


def test_tasks_of_asyncio_are_each_in_their_own(written, run):
    async def part(name: str, barrier: asyncio.Barrier) -> int:
        with run.stage(name) as stage:
            await barrier.wait()
            log.info(name)
            await log.ainfo(name)
            return stage.span_id

    async def all_parts() -> list[int]:
        barrier = asyncio.Barrier(3)
        return await asyncio.gather(*(part(name, barrier) for name in "abc"))

    ids = asyncio.run(all_parts())
    expected = {name: (str(span_id), name) for name, span_id in zip("abc", ids, strict=True)}
    records = written.records()
    assert len(records) == 6
    assert all(place(record) == expected[record["event"]] for record in records)


def test_a_thread_that_tasks_of_asyncio_share_is_in_the_stage_around_them(written, run):
    async def part(name: str, barrier: asyncio.Barrier) -> None:
        with run.stage(name), run.stage(f"{name}-inner"):
            await barrier.wait()
            await asyncio.get_running_loop().run_in_executor(None, log.info, name)
            await asyncio.to_thread(log.info, name)
            await barrier.wait()

    async def all_parts() -> None:
        barrier = asyncio.Barrier(2)
        with run.stage("all"):
            await asyncio.gather(*(part(name, barrier) for name in "ab"))
        with run.stage("one"), run.stage("alone"):
            await asyncio.get_running_loop().run_in_executor(None, log.info, "alone")

    asyncio.run(all_parts())
    stages = [(record["event"], record["batch_model.stage"]) for record in written.records()]
    assert sorted(stages) == [
        ("a", "a-inner"), ("a", "all"), ("alone", "alone"), ("b", "all"), ("b", "b-inner"),
    ]  # fmt: skip


@pytest.mark.timeout(30)
def test_a_thread_beside_stages_that_are_opened_within_themselves_can_log(written, run):
    outer, inner, last = (run.stage(name) for name in ("outer", "inner", "last"))
    outer.__enter__()
    inner.__enter__()
    outer.__enter__()
    last.__enter__()
    for stage in (inner, outer):
        stage.__exit__(None, None, None)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(log.info, "from a thread").result()
    last.__exit__(None, None, None)
    assert written.record()["batch_model.stage"] == "last"


def test_a_forked_child_is_in_the_stage_of_its_parent(logging_put_back, run, tmp_path):
    from tests.logs.forked import logged_by_child

    with run.stage("load") as load:
        (record,) = logged_by_child(tmp_path / "log", lambda: log.info("child", pid=os.getpid()))
    assert place(record) == (str(load.span_id), "load")
    assert record["pid"] != os.getpid()


def test_bound_fields_are_in_all_lines_of_the_context(written):
    bind(batch=1)
    with bind(batch=2, part="a"):
        log.info("ours")
        logging.getLogger("theirs").info("theirs")
    log.info("after")
    unbind("batch", "unknown")
    log.info("unbound")
    ours, theirs, after, unbound = written.records()
    assert (ours["batch"], ours["part"]) == (theirs["batch"], theirs["part"]) == (2, "a")
    assert (after["batch"], "part" in after, "batch" in unbound) == (1, False, False)


def test_lines_after_the_end_of_a_run_are_still_its(written, run):
    follow(run)
    set_current_run(None)
    log.info("task is over")
    assert written.record()["dd.span_id"] == str(run.context.span_id)


def test_the_processor_leaves_what_is_there(run):
    added = add_run_fields(None, "info", {"event": "x", "dd.span_id": "7"})
    assert (added["dd.span_id"], added["dd.trace_id"]) == ("7", run.trace_id)


# --- Spans of tracers --------------------------------------------------------------------------------------------


@pytest.fixture
def ddtrace(monkeypatch):
    """ddtrace, as far as it is asked, with the span that is active."""
    tracer = SimpleNamespace(enabled=True, span=None, current_span=lambda: tracer.span)
    monkeypatch.setitem(sys.modules, "ddtrace.trace", SimpleNamespace(tracer=tracer))
    return tracer


def span(span_id: int, priority: int | None = 1) -> SimpleNamespace:
    """Return a span of ddtrace."""
    return SimpleNamespace(trace_id=0xABC, span_id=span_id, context=SimpleNamespace(sampling_priority=priority))


def test_a_span_of_ddtrace_within_the_stage_has_the_line(written, run, ddtrace):
    with run.stage("load") as load:
        ddtrace.span = span(77)
        log.info("query")
        ddtrace.span = None
        log.info("after")
    query, after = written.records()
    assert (query["dd.trace_id"], *place(query)) == (f"{0xABC:032x}", "77", "load")
    assert place(after) == (str(load.span_id), "load")


def test_a_stage_within_a_span_of_ddtrace_has_the_line(written, run, ddtrace):
    ddtrace.span = span(77)
    log.info("before")
    with run.stage("load") as load:
        log.info("within")
    before, within = written.records()
    assert before["dd.span_id"] == "77"
    assert place(within) == (str(load.span_id), "load")


@pytest.mark.parametrize("priority", [0, -1])
def test_a_span_that_is_not_kept_has_no_lines(written, run, ddtrace, priority):
    ddtrace.span = span(77, priority)
    log.info("dropped")
    assert written.record()["dd.span_id"] == str(run.context.span_id)


def test_a_tracer_that_fails_is_no_reason_not_to_log(written, run, ddtrace):
    ddtrace.current_span = lambda: 1 / 0
    log.info("ours")
    assert written.record()["dd.span_id"] == str(run.context.span_id)


def test_a_span_of_opentelemetry_has_its_lines_if_it_is_kept(written, run):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    kept, dropped = (TracerProvider(sampler=sampler).get_tracer("t") for sampler in (ALWAYS_ON, ALWAYS_OFF))
    with run.stage("load") as load:
        with kept.start_as_current_span("query") as query:
            log.info("query")
        with dropped.start_as_current_span("not kept"):
            log.info("stage")
    of_query, of_stage = written.records()
    assert of_query["dd.span_id"] == str(query.get_span_context().span_id)
    assert of_query["dd.trace_id"] == f"{query.get_span_context().trace_id:032x}"
    assert place(of_stage) == (str(load.span_id), "load")


WITH_DDTRACE = """
from ddtrace.trace import tracer
from batch_observability.logs import configure_logging, get_logger
from batch_observability.run import Run, set_current_run
from tests.unit.conftest import run_context
configure_logging()
run = Run(run_context())
set_current_run(run)
with run.stage("load"), tracer.trace("query") as span:
    get_logger("x").info("query")
    print(f"{span.trace_id:032x}", span.span_id)
    span.context.sampling_priority = -1
"""


def test_a_span_of_the_real_ddtrace_has_its_lines():
    environment = {
        **os.environ,
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", WITH_DDTRACE], env=environment, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stderr.splitlines() if '"logger": "x"' in line]
    record = json.loads(line)
    assert [record["dd.trace_id"], record["dd.span_id"]] == done.stdout.split()
    assert record["batch_model.stage"] == "load"
