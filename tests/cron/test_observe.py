"""`observe`: a run in a process that nothing else observes, and a stage in one that is observed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from batch_observability import BatchModel, ModelError, current_run, observe
from tests.cron.jobs import finished, run, state

HEAD = "import asyncio, os, sys, threading\nfrom batch_observability import BatchModel, current_run, observe\n"


def script(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script that observes itself."""
    environment = {**os.environ, **variables}
    environment.pop("PYTEST_VERSION", None)
    words = [sys.executable, "-c", HEAD + code]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def told_by(code: str) -> dict:
    """Return what is told of the one run of a script."""
    script(code)
    (told,) = finished()
    return told


ENDINGS = {
    "to its end": ("pass", 0, "success", None),
    "an error": ("raise ValueError('bad row')", 1, "failed", "bad row"),
    "exit": ("sys.exit()", 0, "success", None),
    "exit 0": ("sys.exit(0)", 0, "success", None),
    "exit 3": ("sys.exit(3)", 3, "failed", "exit code 3"),
    "exit with words": ("sys.exit('no data')", 1, "failed", "no data"),
    "Ctrl-C": ("raise KeyboardInterrupt", -signal.SIGINT, "cancelled", None),
    "its process is gone": ("os._exit(0)", 0, "killed", None),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_run_ends_as_its_block_does(name):
    code, status, outcome, message = ENDINGS[name]
    ran = script(f"with observe('churn', owner='team-risk') as run:\n    run.rows(read=3)\n    {code}")
    (told,) = finished()
    assert ran.returncode == status
    assert (told["batch_model.outcome"], told["batch_model.name"]) == (outcome, "churn")
    assert (told["batch_model.owner"], told["batch_model.rows.read"]) == ("team-risk", 3)
    if message:
        assert told["error.message"] == message


KINDS = {
    "a function": "@O\ndef f(): current_run().rows(read=2)\nf()",
    "a coroutine": "@O\nasync def f():\n    await asyncio.sleep(0)\n    current_run().rows(read=2)\nasyncio.run(f())",
    "a generator": "@O\ndef f():\n    yield 1\n    current_run().rows(read=2)\nassert list(f()) == [1]",
    "an async generator": "@O\nasync def f():\n    yield 1\n    current_run().rows(read=2)\n"
    "async def g(): assert [x async for x in f()] == [1]\nasyncio.run(g())",
    "a generator that is left": "@O\ndef f():\n    current_run().rows(read=2)\n    yield 1\nfor _ in f(): break",
    "a block": "with O as run: run.rows(read=2)",
    "an async block": "async def f():\n    async with O as run: run.rows(read=2)\nasyncio.run(f())",
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_works_around(kind):
    told = told_by(f"O = observe(BatchModel(name='churn', version='7'))\n{KINDS[kind]}")
    assert (told["batch_model.outcome"], told["batch_model.version"]) == ("success", "7")
    assert told["batch_model.rows.read"] == 2


def test_a_task_that_is_cancelled_is_not_failed():
    code = "@observe('churn')\nasync def f(): await asyncio.sleep(60)\n"
    assert told_by(f"{code}asyncio.run(asyncio.wait_for(f(), 0.05))")["batch_model.outcome"] == "cancelled"


def test_what_is_observed_within_a_run_is_a_stage_of_it():
    told = told_by(
        "@observe('part')\ndef part(depth):\n    if depth: part(depth - 1)\n"
        "with observe('churn'):\n    part(2)\n"
        "    threads = [threading.Thread(target=part, args=(0,)) for _ in range(3)]\n"
        "    for thread in threads: thread.start()\n    for thread in threads: thread.join()"
    )
    assert (told["batch_model.name"], set(told["batch_model.stages"])) == ("churn", {"part"})


def test_one_after_the_other_are_runs_of_their_own():
    script("score = observe('churn')\nfor _ in range(2):\n    with score: pass")
    told = finished(2)
    assert len({one["batch_model.run_id"] for one in told}) == 2


def test_it_is_a_stage_below_batchobs_run():
    code = f"{HEAD}@observe('inner')\ndef f(): current_run().rows(read=2)\nf()"
    run("--model", "outer", "--", sys.executable, "-c", code)
    (told,) = finished()
    assert (told["batch_model.name"], set(told["batch_model.stages"])) == ("outer", {"inner"})
    assert told["batch_model.rows.read"] == 2


def test_it_goes_on_in_the_trace_that_it_is_started_in():
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    script("with observe('churn'): pass", TRACEPARENT=f"00-{trace_id}-b7ad6b7169203331-00")
    (told,) = finished()
    assert told["dd.trace_id"] == trace_id


def test_lines_and_children_follow_the_run(tmp_path):
    path = tmp_path / "score.py"
    path.write_text(
        "import multiprocessing\nfrom batch_observability import current_run, observe\n"
        "from batch_observability.logs import configure_logging, get_logger\n"
        "def part(): get_logger().info('child'); current_run().rows(written=5)\n"
        "if __name__ == '__main__':\n    configure_logging()\n    with observe('churn') as run:\n"
        "        child = multiprocessing.get_context('spawn').Process(target=part); child.start(); child.join()\n"
        "    get_logger().info('after')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_VERSION"}
    said = subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, check=True).stderr
    (told,) = finished()
    child, after = said.splitlines()
    assert told["batch_model.rows.written"] == 5
    assert told["batch_model.run_id"] in child
    assert told["batch_model.run_id"] not in after


def test_a_forked_child_that_leaves_the_block_does_not_end_the_run():
    told = told_by(
        "with observe('churn') as run:\n    pid = os.fork()\n    if not pid: sys.exit(4)\n"
        "    os.waitpid(pid, 0)\n    run.rows(read=1)"
    )
    assert (told["batch_model.outcome"], told["batch_model.rows.read"]) == ("success", 1)


def test_what_is_returned_raised_and_sent_is_the_functions_own():
    def answers():
        got = yield 1
        return got

    def collect():
        result = yield from observe("churn")(answers)()
        collected.append(result)

    collected: list[object] = []
    with observe("outer"):
        assert observe("inner")(lambda value: value)(3) == 3
        generator = collect()
        next(generator)
        with pytest.raises(StopIteration):
            generator.send("sent")
    assert collected == ["sent"]
    assert not current_run().active


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: observe(print), "write observe("),
        (lambda: observe("no name!"), "batch model name"),
        (lambda: observe("churn", owned="me"), "write fields of a BatchModel"),
        (lambda: observe("churn", sla={"finish_within": "soon"}), "finish_within"),
        (lambda: observe(BatchModel(name="churn"), owner="me"), "one or the other"),
        (lambda: observe("churn")(3), "around a function"),
    ],
)
def test_a_mistake_is_told_where_it_is_made(make, says):
    with pytest.raises(ModelError, match=says.replace("(", r"\(")):
        make()


def test_where_it_is_to_wait_all_is_on_disk_when_its_process_has_ended():
    script("with observe('churn') as run: run.rows(read=3)", BATCHOBS_WAIT_AT_END="always")
    kept = "".join(path.read_text(errors="replace") for path in (state() / "spool").rglob("*") if path.is_file())
    assert "batch_model.rows.read" in kept
