"""How a job ended, as it is told: exit codes, signals, time that ran out, and an observer that was killed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.cron.jobs import COMMAND, captured, finished, run, start
from tests.cron.side_by_side import python
from tests.live import wait_until

ENDINGS = {
    "exit 0": (("sh", "-c", "exit 0"), "success", None, None),
    "exit 3": (("sh", "-c", "echo no; exit 3"), "failed", "ExitCode", "exit code 3"),
    "a Python error": (python("raise ValueError('bad row')"), "failed", "ValueError", "bad row (exit code 1)"),
    "KILL": (("sh", "-c", "kill -KILL $$"), "killed", "SIGKILL", "signal SIGKILL"),
    "TERM by itself": (("sh", "-c", "kill $$"), "killed", "SIGTERM", "signal SIGTERM"),
    "not found": (("no-such-command",), "failed", "NotStarted", "no-such-command: No such file or directory"),
    "not executable": (("/etc",), "failed", "NotStarted", "/etc: Permission denied"),
}


def says_when_ready(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout
    return process.stdout.readline()


@pytest.mark.parametrize("name", ENDINGS)
def test_an_ending_has_its_outcome_and_error(name):
    words, outcome, kind, message = ENDINGS[name]
    run("--model", "churn", "--", *words)
    (told,) = finished()
    assert (told["batch_model.outcome"], told.get("error.kind"), told.get("error.message")) == (outcome, kind, message)
    assert told["batch_model.name"] == "churn"


def test_a_core_is_told():
    told_of = run("--", "sh", "-c", "kill -SEGV $$")
    assert told_of.returncode == -signal.SIGSEGV
    (told,) = finished()
    assert told["error.message"].startswith("signal SIGSEGV")


def test_the_last_lines_are_with_the_failure_and_hold_no_secret():
    secret = "hunter" + "2" * 12
    run("--", "sh", "-c", f"seq 1000; echo password={secret}; echo last words >&2; exit 1")
    (told,) = finished()
    stack = told["error.stack"].splitlines()
    assert stack[-1] == "last words" or "last words" in stack
    assert len(stack) == 50
    assert secret not in str(told)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "ALRM", "CONT"])
def test_a_signal_reaches_the_command_once(name):
    code = f"""
def handler(n, frame): global got; got += 1
got = 0
signal.signal(signal.SIG{name}, handler)
print('ready', flush=True)
while not got: time.sleep(0.01)
time.sleep(0.1)
sys.exit(50 + got)
"""
    with start("--", *python(code)) as process:
        says_when_ready(process)
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.wait(30) == 51


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_who_asks_a_job_to_end_cancels_it(number):
    with start("--", "sh", "-c", "echo ready; exec sleep 60") as process:
        says_when_ready(process)
        process.send_signal(number)
        assert process.wait(30) == -number
    (told,) = finished()
    assert told["batch_model.outcome"] == "cancelled"


def test_a_job_that_outlives_its_time_is_ended_with_all_that_it_started():
    code = """
import subprocess
mark = sys.argv[1]
for how in ({}, {'start_new_session': True}, {'process_group': 0}):
    subprocess.Popen(['sleep', '61.' + mark], **how)
print('ready', flush=True)
time.sleep(60)
"""
    mark = str(os.getpid())
    done = run("--timeout", "2s", "--grace", "5s", "--", *python(code, mark))
    assert done.returncode == 124
    assert [
        process for process in psutil.process_iter(["cmdline"]) if f"61.{mark}" in (process.info["cmdline"] or ())
    ] == []
    (told,) = finished()
    assert (told["batch_model.outcome"], told["error.kind"]) == ("timed_out", "TimedOut")
    assert told["error.message"].startswith("not done after 2s")


def test_a_job_that_will_not_end_is_killed_after_its_grace():
    began = time.monotonic()
    done = run("--timeout", "1s", "--grace", "1s", "--", "sh", "-c", "trap '' TERM; while :; do sleep 0.2; done")
    assert done.returncode == 124
    assert 2 <= time.monotonic() - began < 20
    assert "SIGKILL" in finished()[0]["error.message"]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no session has a share of its own here")
def test_an_observer_leaves_the_processor_to_others_for_a_moment_only():
    with start("--", "sh", "-c", "echo ready; read x", stdin=subprocess.PIPE) as process:
        says_when_ready(process)
        (observer,) = [
            one for one in psutil.Process(process.pid).children() if "__main__.py" in " ".join(one.cmdline())
        ]
        share = Path(f"/proc/{observer.pid}/autogroup")
        wait_until(lambda: share.read_text().endswith("nice 10\n"), "it stands back", 20, share.read_text, every=0.02)
        wait_until(lambda: share.read_text().endswith("nice 0\n"), "it has what others have", 60, share.read_text)
        process.communicate(b"go\n", timeout=30)
    assert finished()


def test_it_leaves_at_once_while_others_go_on_writing():
    read, write = os.pipe()
    process = start("--", "sh", "-c", "(sleep 3; echo later) & echo now; exit 4", stdout=write)
    os.close(write)
    assert process.wait(2.9) == 4
    with os.fdopen(read, "rb") as stream:
        assert stream.read() == b"now\nlater\n"
    assert process.stderr
    process.stderr.close()


def test_output_of_every_kind_becomes_lines():
    done = run(
        "--model", "kinds", "--", "sh", "-c",
        r"""printf '{"event": "from json", "level": "debug", "rows": 5}\nplain\n\377\n'; printf 'no end' >&2""",
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (
        b'{"event": "from json", "level": "debug", "rows": 5}\nplain\n\xff\n',
        b"no end",
    )
    got = {(line["logger"], line["event"], line["level"]) for line in captured("kinds")}
    assert got == {
        ("stdout", "from json", "debug"),
        ("stdout", "plain", "info"),
        ("stdout", "\\xff", "info"),
        ("stderr", "no end", "error"),
    }
    (told,) = finished()
    for line in captured("kinds"):
        assert line["dd.trace_id"] == told["dd.trace_id"]
        assert line["batch_model.run_id"] == told["batch_model.run_id"]


def test_what_a_line_says_of_its_span_and_time_stays(otlp, monkeypatch):
    monkeypatch.setenv("BATCHOBS_SHIP_LOGS", "1")
    own = {"event": "mine", "dd.trace_id": "0" * 31 + "7", "dd.span_id": "8", "timestamp": "2026-01-02T03:04:05+00:00"}
    run("--model", "own", "--", "echo", json.dumps(own))

    def mine() -> list[dict]:
        return [record for record in otlp.otlp_logs() if record["body"] == "mine"]

    wait_until(mine, "the line is at the agent", 30)
    (line,) = captured("own")
    assert {name: line[name] for name in own} == own
    (sent,) = mine()
    assert sent["attributes"]["dd.trace_id"] == own["dd.trace_id"]
    assert sent["attributes"]["dd.span_id"] == own["dd.span_id"]


def test_bytes_that_are_no_text_stay_within_the_bound(monkeypatch):
    monkeypatch.setenv("BATCHOBS_CAPTURE_MAX_MB", "1")
    done = run("--model", "nul", "--", "sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' '\\0' | fold -b -w 1000")
    assert len(done.stdout) > 4_000_000
    *lines, last = captured("nul")
    assert sum(len(line["event"]) for line in lines) * len(json.dumps("\0")[1:-1]) < 1_100_000
    assert last["event"].endswith("bytes of the job's output are not captured")


def test_a_file_that_a_job_writes_to_is_captured_too(tmp_path):
    path = tmp_path / "out"
    path.write_text("before\n")
    with path.open("a") as file:
        run("--model", "filed", "--", "sh", "-c", "echo one; echo two >&2", stdout=file, stderr=file)
    assert path.read_text() == "before\none\ntwo\n"
    assert [line["event"] for line in captured("filed")] == ["one", "two"]


@pytest.mark.thorough
def test_what_is_more_than_the_bound_is_counted(monkeypatch):
    monkeypatch.setenv("BATCHOBS_CAPTURE_MAX_MB", "1")
    done = run("--model", "loud", "--", "sh", "-c", "yes 0123456789 | head -c 5000000")
    assert len(done.stdout) == 5_000_000
    said = "bytes of the job's output are not captured"
    wait_until(lambda: any(line["event"].endswith(said) for line in captured("loud")), "it is said", 20)
    *lines, last = captured("loud")
    assert int(last["event"].split()[0]) == 4_000_000
    assert 90_909 <= len(lines) <= 90_910


def test_nothing_is_captured_where_that_is_switched_off(monkeypatch):
    monkeypatch.setenv("BATCHOBS_CAPTURE_MAX_MB", "0")
    assert run("--model", "quiet", "--", "echo", "hello").stdout == b"hello\n"
    assert captured("quiet") == []


def test_a_terminal_is_handed_on_and_stops_a_job_once():
    code = """
def handler(n, frame): global got; got += 1
got = 0
signal.signal(signal.SIGINT, handler)
print([os.isatty(n) for n in range(3)], os.getpgrp() == os.tcgetpgrp(0), flush=True)
while not got: time.sleep(0.01)
time.sleep(0.2)
print('got', got, flush=True)
"""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(COMMAND[0], [*COMMAND, "--", *python(code)])
    seen = b""
    while b"True\r\n" not in seen and b"False\r\n" not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"got" not in seen:
        seen += os.read(terminal, 1000)
    os.waitpid(pid, 0)
    assert b"[True, True, True] True" in seen
    assert b"got 1" in seen
