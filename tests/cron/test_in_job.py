"""A Python process somewhere below `batchobs run` finds its run by itself."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import uuid

import pytest

from tests.cron.jobs import captured, finished, run, start, state
from tests.live import wait_until

OBSERVE = "from batch_observability import current_run, observe\n"
LOG = "from batch_observability.logs import get_logger\n"
PARENT_GONE = {
    "BATCHOBS_CHANNEL": "/nowhere/to.sock",
    "BATCHOBS_RUN": json.dumps(
        {
            "run_id": "one",
            "source": "cron",
            "resource": "churn",
            "model": {"name": "churn", "version": "3", "service": "churn", "owner": "", "tier": "3"},
            "tags": {"job": "churn"},
            "trace_id": 10,
            "span_id": 11,
            "of_a_later_version": 1,
        }
    ),
}


def of_python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def alone(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose observer is gone, as an uninvolved test would."""
    environment = {**os.environ, **PARENT_GONE, **variables}
    environment.pop("PYTEST_VERSION", None)
    return subprocess.run(of_python(code), env=environment, capture_output=True, text=True, timeout=30, check=False)


def told_by(code: str) -> dict:
    """Return what is told of a job that is this code."""
    ran = run("--model", "churn", "--", *of_python(code))
    assert (ran.returncode, ran.stderr) == (0, b"")
    (told,) = finished()
    return told


def test_rows_and_stages_of_a_script_are_its_runs():
    told = told_by(f"{OBSERVE}run = current_run()\nwith run.stage('load'): run.rows(read=5, written=4)")
    assert (told["batch_model.rows.read"], told["batch_model.rows.written"]) == (5, 4)
    assert set(told["batch_model.stages"]) == {"load"}


def test_a_grandchild_below_a_shell_finds_the_run_too():
    inner = shlex.join(of_python(f"{OBSERVE}current_run().rows(written=7)"))
    outer = (
        f"import subprocess\n{OBSERVE}current_run().rows(written=1)\nsubprocess.run({inner!r} + '; true', shell=True)"
    )
    assert told_by(outer)["batch_model.rows.written"] == 8


def test_a_forked_child_and_a_thread_are_in_the_run():
    told = told_by(
        f"import os, threading\n{OBSERVE}current_run().rows(read=1)\n"
        "if not os.fork(): current_run().rows(read=2); os._exit(0)\nos.wait()\n"
        "thread = threading.Thread(target=lambda: current_run().rows(read=4)); thread.start(); thread.join()"
    )
    assert told["batch_model.rows.read"] == 7


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_log_in_the_stage_of_their_parent(method, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        f"import multiprocessing\n{OBSERVE}{LOG}\n"
        "def part(number):\n    current_run().rows(written=number)\n    get_logger('part').info('done')\n\n"
        "if __name__ == '__main__':\n"
        "    with current_run().stage('parts'):\n"
        f"        children = [multiprocessing.get_context({method!r}).Process(target=part, args=(3,)) for _ in 'ab']\n"
        "        for child in children: child.start()\n"
        "        for child in children: child.join()\n"
    )
    run("--", sys.executable, str(script))
    (told,) = finished()
    assert told["batch_model.rows.written"] == 6
    lines = [line for line in captured("score") if line["event"] == "done"]
    assert [line["batch_model.stage"] for line in lines] == ["parts", "parts"]


def test_a_logger_writes_json_lines_of_the_run_and_nobody_elses_lines_change():
    code = (
        f"import logging, structlog\n{LOG}get_logger('mine').info('ours', rows=3)\nget_logger().debug('not shown')\n"
        "logging.getLogger('theirs').warning('plain')\nstructlog.is_configured() and print('configured')"
    )
    ran = run("--model", "churn", "--", *of_python(code))
    (told,) = finished()
    ours, plain = ran.stderr.decode().splitlines()
    line = json.loads(ours)
    assert (line["event"], line["logger"], line["rows"]) == ("ours", "mine", 3)
    assert (line["dd.trace_id"], line["dd.span_id"]) == (told["dd.trace_id"], told["dd.span_id"])
    assert (plain, ran.stdout) == ("plain", b"")


def test_what_a_job_prints_is_masked_line_by_line(monkeypatch):
    monkeypatch.setenv("BATCHOBS_LOG_REDACT", r"ACC-\d+")
    body = [uuid.uuid4().hex for _ in range(3)]
    kind = "PRIVATE KEY"
    code = (
        f"print('before', '-----BEGIN {kind}-----', *{body!r}, '-----END {kind}-----', 'after ACC-12', sep=chr(10))\n"
        'print(\'{"event": "paid", "account": "ACC-34", "password": "x"}\')'
    )
    run("--model", "churn", "--", *of_python(code))
    *lines, paid = captured("churn")
    assert [line["event"] for line in lines] == ["before", *["***"] * 5, "after ***"]
    assert (paid["event"], paid["account"], paid["password"]) == ("paid", "***", "***")


@pytest.mark.thorough
def test_a_line_is_shipped_once(otlp, monkeypatch):
    monkeypatch.setenv("BATCHOBS_SHIP_LOGS", "1")
    configured = "from batch_observability.logs import configure_logging\nconfigure_logging()\n"
    for code in (f"{LOG}get_logger().info('a line')", f"{LOG}{configured}get_logger().info('a line')"):
        otlp.clear()
        run("--model", "churn", "--", *of_python(code))

        def bodies() -> list[str]:
            return [record["body"] for record in otlp.otlp_logs()]

        wait_until(lambda: "batch model run finished" in bodies(), "the run is at the agent", 30, bodies)
        assert bodies().count("a line") == 1


def test_nothing_is_connected_before_somebody_asks():
    code = (
        f"import os\n{OBSERVE}{LOG}log = get_logger('x')\n"
        "def sockets():\n    links = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]\n"
        "    return sum(os.path.islink(one) and os.readlink(one).startswith('socket:') for one in links)\n"
        "before = sockets()\ncurrent_run()\nprint(before, sockets())"
    )
    assert run("--", *of_python(code)).stdout.split() == [b"0", b"1"]


def test_a_job_whose_observer_is_gone_keeps_its_fields_and_drops_its_frames():
    code = f"{OBSERVE}{LOG}run = current_run()\nwith run.stage('load'): run.rows(read=1)\nget_logger().info('on')"
    ran = alone(code)
    line = json.loads(ran.stderr)
    assert (ran.returncode, line["event"], line["batch_model.run_id"]) == (0, "on", "one")


def test_a_job_whose_observer_dies_goes_on():
    code = f"import sys\n{OBSERVE}run = current_run()\nrun.rows(read=1)\nprint('ready', flush=True)\nsys.stdin.read()\n"
    ends = "for _ in range(5000): run.rows(read=1)\nopen('ended', 'w').close()"
    with start("--", *of_python(code + ends), cwd=state().parent, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.stdin.close()
        wait_until((state().parent / "ended").exists, "the job ends", 30)


@pytest.mark.parametrize("given", ["", "{", "[]", "{}", '{"run_id": 1, "model": 3}', "\udcff"])
def test_a_run_that_cannot_be_read_is_none(given):
    ran = alone(f"{OBSERVE}{LOG}print(repr(current_run().run_id)); current_run().rows(read=1)", BATCHOBS_RUN=given)
    assert (ran.stdout, ran.stderr) == ("''\n", "")
