"""Stages: what hangs under what, through nesting, threads, asyncio, generators and forks."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from batch_observability import Run, Stage, schema
from tests.unit.conftest import run_context


def test_a_stage_begins_and_ends(wire):
    before = time.time_ns()
    with wire.run.stage("load") as stage:
        assert isinstance(stage, Stage)
        assert wire.run.current_stage is stage
    begin, end = wire.frames()
    assert (begin["t"], begin["name"], begin["parent"]) == ("stage", "load", 0)
    assert (end["t"], end["id"], end["error"]) == ("stage_end", begin["id"], None)
    assert begin["id"] == stage.span_id
    assert before - 1_000_000 <= begin["ts"] <= end["ts"] <= time.time_ns() + 1_000_000
    assert wire.run.current_stage is None


def test_stages_nest(wire):
    with wire.run.stage("score"):
        with wire.run.stage("features"):
            with wire.run.stage("join"):
                pass
            with wire.run.stage("encode"):
                pass
        with wire.run.stage("predict"):
            pass
    with wire.run.stage("publish"):
        pass
    assert wire.tree() == [
        ("score", ""),
        ("features", "score"),
        ("join", "features"),
        ("encode", "features"),
        ("predict", "score"),
        ("publish", ""),
    ]


def test_each_stage_has_an_id_of_its_own(wire):
    for _ in range(5):
        with wire.run.stage("load"):
            pass
    ids = [frame["id"] for frame in wire.frames("stage")]
    assert len(set(ids)) == 5
    assert all(0 < span_id < 2**64 for span_id in ids)


def test_ids_of_stages_differ_between_tries_and_phases():
    """A resumed run goes on under the same span id, and counts its stages anew."""
    ids = set()
    for changes in ({"start_ns": 1}, {"start_ns": 2}, {"start_ns": 1, "span_id": 1}):
        with Run(run_context(**changes)).stage("load") as stage:
            ids.add(stage.span_id)
    assert len(ids) == 3


def test_a_stage_takes_time(wire):
    stage = wire.run.stage("load")
    assert stage.duration_s == 0
    with stage:
        deadline = time.monotonic() + 5
        while stage.duration_s == 0:
            assert time.monotonic() < deadline
    took = stage.duration_s
    assert took > 0
    assert stage.duration_s == took


def test_a_stage_that_is_entered_again_takes_time_again(wire):
    stage = wire.run.stage("load")
    for _ in range(2):
        with stage:
            assert stage.duration_s >= 0


def test_the_name_of_a_stage_is_any_text_up_to_a_limit(wire):
    for name in ("x" * 1000, 7, ""):
        with wire.run.stage(name):
            pass
    assert [frame["name"] for frame in wire.frames("stage")] == ["x" * 200, "7", ""]


@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit])
def test_a_stage_that_raises_ends_as_an_error_and_lets_it_pass(wire, kind):
    with pytest.raises(kind, match="lost"), wire.run.stage("load"), wire.run.stage("parse"):
        raise kind("lost")
    inner, outer = wire.frames("stage_end")
    for end in (inner, outer):
        assert (end["error"]["type"], end["error"]["message"]) == (kind.__name__, "lost")
        assert f"{kind.__name__}: lost" in end["error"]["stack"]
    assert wire.run.current_stage is None


def test_an_error_that_is_handled_inside_is_none_of_the_stage(wire):
    with wire.run.stage("load"), pytest.raises(LookupError), wire.run.stage("parse"):
        raise LookupError
    inner, outer = wire.frames("stage_end")
    assert inner["error"]["type"] == "LookupError"
    assert outer["error"] is None


def test_a_stage_of_another_run_is_not_the_outer_one(wire):
    """A test or a notebook may have two."""
    other = Run(run_context())
    with other.stage("theirs"), wire.run.stage("ours"):
        assert other.current_stage.name == "theirs"
        assert wire.run.current_stage.name == "ours"
    assert wire.tree() == [("ours", "")]


# --- Threads -----------------------------------------------------------------------------------------------------


def in_thread(action) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def staged(run, *names) -> None:
    """Nest stages, and leave them."""
    if names:
        with run.stage(names[0]):
            staged(run, *names[1:])


def test_stages_of_a_thread_hang_under_the_stage_that_the_main_thread_is_in(wire):
    with wire.run.stage("score"):
        in_thread(lambda: staged(wire.run, "part", "chunk"))
        with wire.run.stage("collect"):
            in_thread(lambda: staged(wire.run, "late"))
    in_thread(lambda: staged(wire.run, "after"))
    assert wire.tree() == [
        ("score", ""),
        ("part", "score"),
        ("chunk", "part"),
        ("collect", "score"),
        ("late", "collect"),
        ("after", ""),
    ]


def test_stages_of_threads_do_not_hang_under_each_other(wire):
    meet = threading.Barrier(3, timeout=10)

    def work(name):
        with wire.run.stage(name):
            meet.wait()
            with wire.run.stage(f"{name}.inner"):
                meet.wait()

    with ThreadPoolExecutor(3) as pool, wire.run.stage("score"):
        list(pool.map(work, ["a", "b", "c"]))
    assert sorted(wire.tree()) == [
        ("a", "score"),
        ("a.inner", "a"),
        ("b", "score"),
        ("b.inner", "b"),
        ("c", "score"),
        ("c.inner", "c"),
        ("score", ""),
    ]


def test_the_stage_of_a_thread_is_not_that_of_the_main_thread(wire):
    inside, leave = threading.Event(), threading.Event()

    def work():
        with wire.run.stage("theirs"):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    try:
        assert wire.run.current_stage is None
        with wire.run.stage("ours"):
            assert wire.run.current_stage.name == "ours"
    finally:
        leave.set()
        thread.join()
    assert wire.tree() == [("theirs", ""), ("ours", "")]


def test_a_thread_may_outlive_the_stage_that_it_began_in(wire):
    begun, ended = threading.Event(), threading.Event()

    def work():
        with wire.run.stage("part"):
            begun.set()
            ended.wait()
            with wire.run.stage("chunk"):
                pass
        with wire.run.stage("rest"):
            pass

    thread = threading.Thread(target=work)
    with wire.run.stage("score"):
        thread.start()
        begun.wait()
    ended.set()
    thread.join()
    assert wire.tree() == [("score", ""), ("part", "score"), ("chunk", "part"), ("rest", "")]


# --- asyncio -----------------------------------------------------------------------------------------------------


async def meeting(run, *names) -> None:
    """Open one stage in each of several tasks, all open at the same time, closed in the order of the names."""
    turns = [asyncio.Event() for _ in names]

    async def work(number: int) -> None:
        with run.stage(names[number]):
            if number == len(names) - 1:
                turns[0].set()
            await turns[number].wait()
            with run.stage(f"{names[number]}.inner"):
                await asyncio.sleep(0)
        if number + 1 < len(names):
            turns[number + 1].set()

    await asyncio.gather(*map(work, range(len(names))))


SIBLINGS = [("a.inner", "a"), ("b.inner", "b"), ("c.inner", "c")]


def test_stages_of_tasks_hang_under_the_stage_they_were_made_in(wire):
    async def main():
        with wire.run.stage("score"):
            await meeting(wire.run, "a", "b", "c")

    asyncio.run(main())
    assert sorted(wire.tree()) == sorted([*SIBLINGS, ("a", "score"), ("b", "score"), ("c", "score"), ("score", "")])


def test_stages_of_tasks_do_not_hang_under_each_other(wire):
    asyncio.run(meeting(wire.run, "a", "b", "c"))
    assert sorted(wire.tree()) == sorted([*SIBLINGS, ("a", ""), ("b", ""), ("c", "")])


def test_after_tasks_have_ended_the_run_is_in_no_stage(wire):
    asyncio.run(meeting(wire.run, "a", "b", "c"))
    assert wire.run.current_stage is None
    assert schema.LOG_STAGE not in wire.run.log_fields()


def test_after_tasks_have_ended_a_thread_is_in_the_stage_of_the_main_thread(wire):
    async def main():
        with wire.run.stage("score"):
            await meeting(wire.run, "a", "b", "c")
            await asyncio.to_thread(staged, wire.run, "copied")
            in_thread(lambda: staged(wire.run, "plain"))

    asyncio.run(main())
    assert {("copied", "score"), ("plain", "score")} <= set(wire.tree())


# --- Generators --------------------------------------------------------------------------------------------------


def chunks(run, name="read"):
    with run.stage(name):
        yield 1
        yield 2


def test_a_stage_of_a_generator_is_open_between_its_values(wire):
    for _ in chunks(wire.run):
        with wire.run.stage("work"):
            pass
    assert wire.tree() == [("read", ""), ("work", "read"), ("work", "read")]
    assert wire.run.current_stage is None


def test_a_generator_that_is_left_after_its_outer_stage_leaves_nothing_open(wire):
    with wire.run.stage("score"):
        generator = chunks(wire.run)
        next(generator)
    generator.close()
    assert wire.run.current_stage is None
    staged(wire.run, "publish")
    assert wire.tree() == [("score", ""), ("read", "score"), ("publish", "")]


def test_generators_that_are_left_in_the_order_they_were_entered_leave_nothing_open(wire):
    first, second = chunks(wire.run, "first"), chunks(wire.run, "second")
    next(first)
    next(second)
    first.close()
    assert wire.run.current_stage.name == "second"
    second.close()
    assert wire.run.current_stage is None


def test_a_stage_that_is_left_in_another_context_ends(wire):
    """An asynchronous generator is closed by the event loop in a context of its own."""
    generator = chunks(wire.run)
    contextvars.Context().run(next, generator)
    contextvars.Context().run(generator.close)
    (begin, end) = wire.frames()
    assert (end["t"], end["id"], end["error"]["type"]) == ("stage_end", begin["id"], "GeneratorExit")
    assert wire.run.current_stage is None


def test_a_stage_that_is_left_in_another_context_leaves_that_ones_stage(wire):
    generator = chunks(wire.run)
    contextvars.copy_context().run(next, generator)
    with wire.run.stage("score") as stage:
        generator.close()
        assert wire.run.current_stage is stage
        staged(wire.run, "inner")
    assert wire.tree()[-1] == ("inner", "score")


# --- Forks -------------------------------------------------------------------------------------------------------


def test_stages_of_a_forked_child_hang_under_the_stage_that_it_was_forked_in(wire):
    with wire.run.stage("score"):
        pid = os.fork()
        if pid == 0:
            try:
                staged(wire.run, "part", "chunk")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        staged(wire.run, "ours")
    frames = wire.frames("stage")
    assert len({frame["id"] for frame in frames}) == 4
    score, part, chunk, ours = frames
    assert [part["parent"], chunk["parent"], ours["parent"]] == [score["id"], part["id"], score["id"]]
