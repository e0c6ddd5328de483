"""What can be asked of `batchobs run`: one run at a time, attempts, variables, names; and mistakes in it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.cron.jobs import finished, run, start
from tests.cron.side_by_side import python
from tests.live import wait_until


def holding(job: str):
    """Start a run that has the lock of a job."""
    process = start("--model", job, "--overlap", "skip", "--", "sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_run_is_skipped_while_the_one_before_goes_on():
    with holding("churn") as first:
        skipped = run("--model", "churn", "--overlap", "skip", "--", "echo", "second")
        other = run("--model", "other", "--overlap", "skip", "--", "echo", "other")
        first.send_signal(signal.SIGTERM)
    assert (skipped.returncode, skipped.stdout, skipped.stderr) == (0, b"", b"")
    assert other.stdout == b"other\n"
    outcomes = sorted((told["batch_model.name"], told["batch_model.outcome"]) for told in finished(3))
    assert outcomes == [("churn", "cancelled"), ("churn", "skipped"), ("other", "success")]


def test_a_run_waits_for_the_one_before():
    with holding("churn") as first, start("--model", "churn", "--overlap", "wait", "--", "echo", "second") as second:
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == -signal.SIGTERM
        assert second.wait(30) == 0


def test_the_lock_is_free_when_its_holder_was_killed_though_its_job_goes_on():
    with holding("churn") as first:
        first.kill()
    done = run("--model", "churn", "--overlap", "skip", "--", "echo", "second")
    assert done.stdout == b"second\n"


def test_the_lock_is_free_though_a_child_of_the_job_before_goes_on():
    with start("--model", "churn", "--overlap", "skip", "--", "sh", "-c", "sleep 5 & echo ready") as first:
        assert first.wait(30) == 0
        assert run("--model", "churn", "--overlap", "skip", "--", "echo", "second").stdout == b"second\n"


def test_it_is_tried_again_and_exits_as_the_last_attempt(tmp_path):
    counting = 'echo x >>n; test "$(wc -l <n)" -ge 3 || exit 7; echo done; exit 0'
    done = run("--retries", "4", "--", "sh", "-c", counting, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"done\n")
    told = sorted(finished(3), key=lambda one: one["airflow.task_instance.try_number"])
    assert [one["batch_model.outcome"] for one in told] == ["retrying", "retrying", "success"]
    assert [one["airflow.task_instance.try_number"] for one in told] == [1, 2, 3]
    assert len({one["batch_model.run_id"] for one in told}) == 3
    assert len({one["dd.trace_id"] for one in told}) == 1


def test_what_fails_to_the_last_exits_as_it_did():
    done = run("--retries", "1", "--", "sh", "-c", "echo again; exit 7")
    assert (done.returncode, done.stdout) == (7, b"again\nagain\n")
    assert {one["batch_model.outcome"] for one in finished(2)} == {"retrying", "failed"}


GOOD = r"""
# a comment
PLAIN=value
export EXPORTED=1
SPACED = around # comment
SINGLE='$HOME "as it is" # no comment'
DOUBLE="a\"b\nc"
EMPTY=
HASH=a#b
EQUALS=a=b
"""


def test_an_env_file_gives_variables(tmp_path):
    path = tmp_path / "env"
    path.write_text(GOOD)
    names = ("PLAIN", "EXPORTED", "SPACED", "SINGLE", "DOUBLE", "EMPTY", "HASH", "EQUALS")
    done = run(
        "--env-file", str(path), "--", *python(f"import json; print(json.dumps([os.environ[n] for n in {names}]))")
    )
    assert json.loads(done.stdout) == [
        "value", "1", "around", '$HOME "as it is" # no comment', 'a"b\nc', "", "a#b", "a=b"
    ]  # fmt: skip


BAD = {
    "no equals": ("A=1\nnothing\n", "line 2"),
    "a name": ("1A=1\n", "line 1"),
    "a quote": ("\n\nA='x\n", "line 3"),
    "after a quote": ('A="x" y\n', "line 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_in_an_env_file_is_one_line_and_nothing_runs(name, tmp_path):
    text, line = BAD[name]
    path = tmp_path / "env"
    path.write_text(text)
    done = run("--env-file", str(path), "--", "echo", "ran")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert line.encode() in done.stderr
    assert os.fsencode(path) in done.stderr


MISTAKES = {
    "no command": (),
    "a model": ("--model", "a b", "--", "true"),
    "an objective": ("--sla-finish-within", "soon", "--", "true"),
    "a duration": ("--timeout", "x", "--", "true"),
    "a schedule": ("--schedule", "every day", "--", "true"),
    "a zone": ("--schedule", "0 3 * * *", "--timezone", "Mars/Olympus", "--", "true"),
    "an option": ("--frobnicate", "--", "true"),
    "a file": ("--env-file", "/nowhere/env", "--", "true"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line(name):
    done = run(*MISTAKES[name])
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert done.stderr.startswith(b"batchobs")


NAMES = {
    "score": ("sh", "/x/score.sh"),
    "a.b": ("python3", "-m", "a.b"),
    "run": ("/x/run.sh",),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_job_has_the_name_of_its_script(name):
    run("--", *NAMES[name])
    assert finished()[0]["batch_model.name"] == name


def test_a_job_is_in_the_trace_that_it_was_started_in(monkeypatch):
    trace = "0af7651916cd43dd8448eb211c80319c"
    monkeypatch.setenv("TRACEPARENT", f"00-{trace}-b7ad6b7169203331-00")
    monkeypatch.setenv("TRACESTATE", "vendor=1")
    _, found, span, _ = run("--", "sh", "-c", "echo $TRACEPARENT-$TRACESTATE").stdout.decode().split("-", 3)
    (told,) = finished()
    assert found == told["dd.trace_id"] == trace
    assert int(span, 16) == int(told["dd.span_id"])
    assert run("--", "sh", "-c", "echo $TRACESTATE").stdout == b"vendor=1\n"


def test_a_state_without_its_parent_is_not_handed_on(monkeypatch):
    monkeypatch.setenv("TRACESTATE", "vendor=1")
    assert run("--", "sh", "-c", "echo ${TRACESTATE-none}").stdout == b"none\n"


def test_resource_attributes_are_added_to_those_that_are_there(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,team=risk")
    text = run(
        "--model", "churn", "--version", "1.4", "--", "sh", "-c", "echo $OTEL_RESOURCE_ATTRIBUTES"
    ).stdout.decode()
    attributes = dict(part.split("=") for part in text.strip().split(","))
    assert attributes["service.name"] == "mine"
    assert attributes["team"] == "risk"
    assert attributes["service.version"] == "1.4"
    assert attributes["batch_model.name"] == "churn"


CLIENT = """
import json, socket
sock = socket.socket(socket.AF_UNIX)
sock.connect(os.environ['BATCHOBS_CHANNEL'])
run = json.loads(os.environ['BATCHOBS_RUN'])
def send(t, **values): sock.sendall(json.dumps({'t': t, 'ts': time.time_ns(), **values}).encode() + b'\\n')
send('stage', id=77, name='load', parent=0)
send('rows', pid=os.getpid(), read=0, written=48210, rejected=0)
send('stage_end', id=77, error=None)
send('end', outcome='failed', error=None)
print(run['run_id'])
"""


@pytest.mark.parametrize("how", ["job", "grandchild", "last words"])
def test_a_process_of_the_job_talks_to_its_observer(how):
    words = python(CLIENT)
    if how == "grandchild":
        words = python("import subprocess; subprocess.run(sys.argv[1:]); time.sleep(0.1)", *words)
    if how == "last words":
        words = python(CLIENT + "sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)")
    done = run("--", *words)
    (told,) = finished()
    assert told["batch_model.rows.written"] == 48210
    assert "load" in told["batch_model.stages"]
    assert done.stdout.decode().strip() == told["batch_model.run_id"]
    # How it ends is not for the job to say.
    assert told["batch_model.outcome"] == ("killed" if how == "last words" else "success")


def test_no_socket_is_left_behind_by_a_run_that_was_killed():
    with start("--", "sh", "-c", "echo $BATCHOBS_CHANNEL; exec sleep 60") as process:
        assert process.stdout
        path = Path(os.fsdecode(process.stdout.readline().strip()))
        assert path.is_socket()
        for one in (*psutil.Process(process.pid).children(), process):
            one.kill()
    run("--", "true")
    wait_until(lambda: not path.exists(), "the socket is gone", 20)


def test_a_state_folder_with_a_long_path_has_its_sockets_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / ("x" * 100)))
    path = run("--", "sh", "-c", "test -S $BATCHOBS_CHANNEL && echo $BATCHOBS_CHANNEL").stdout.decode().strip()
    assert path.startswith("/tmp/batchobs-")
    wait_until(lambda: not Path(path).exists(), "the socket is gone", 20)


def test_a_job_runs_though_nothing_can_be_told(monkeypatch, tmp_path):
    folder = tmp_path / "file"
    folder.write_text("")
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(folder / "state"))
    done = run("--", "sh", "-c", "echo hello; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"hello\n", b"")
