"""Setting up a process's logging: once, again, beside others, and where its output fails."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest
import structlog

from batch_observability.config import Settings
from batch_observability.logs import configure_logging, get_logger
from batch_observability.logs.configure import RootHandler, configure, configured
from tests.logs.forked import logged_by_child


@pytest.fixture(autouse=True)
def _put_back(logging_put_back):
    return None


def records(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def in_process(code: str, **kwargs) -> subprocess.CompletedProcess:
    """Run Python code that has loggers of both kinds."""
    head = (
        "import logging, os, sys, warnings\n"
        "from batch_observability.logs import *\n"
        "log, theirs = get_logger('ours'), logging.getLogger('theirs')\n"
    )
    return subprocess.run([sys.executable, "-c", head + code], text=True, check=True, **kwargs)


# --- What comes out ----------------------------------------------------------------------------------------------


def test_all_that_logs_comes_out_the_same_way():
    code = """
configure_logging()
import structlog
log.info("a", n=1); theirs.warning("b %d", 2, extra={"n": 2}); structlog.get_logger().error("c", n=3)
warnings.warn("d")
theirs.debug("not"); log.debug("not")
"""
    lines = in_process(code, stderr=subprocess.PIPE).stderr.splitlines()
    found = [json.loads(line) for line in lines]
    assert [(record["level"], record["logger"], record.get("n")) for record in found] == [
        ("info", "ours", 1),
        ("warning", "theirs", 2),
        ("error", "root", 3),
        ("warning", "py.warnings", None),
    ]
    assert "UserWarning: d" in found[-1]["event"]


def test_a_logger_configures_nothing(capsys):
    get_logger("x").info("hello", n=1)
    assert "hello" in capsys.readouterr().out
    assert not structlog.is_configured()


def test_a_logger_that_was_used_before_follows(capsys):
    log = get_logger("x")
    log.info("before")
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    log.info("first")
    log.debug("not")
    configure_logging(stream=second, level="debug")
    log.debug("second")
    assert [record["event"] for record in records(first)] == ["first"]
    assert [record["event"] for record in records(second)] == ["second"]


def test_handlers_of_others_stay():
    root, theirs = logging.getLogger(), logging.StreamHandler(io.StringIO())
    root.addHandler(theirs)
    configure_logging(stream=io.StringIO())
    configure_logging(stream=io.StringIO())
    assert theirs in root.handlers
    assert len([handler for handler in root.handlers if isinstance(handler, RootHandler)]) == 1


def test_handlers_of_others_get_what_they_got():
    root, heard = logging.getLogger(), io.StringIO()
    root.addHandler(logging.StreamHandler(heard))
    root.setLevel(logging.DEBUG)
    configure_logging(stream=(stream := io.StringIO()), level="warning")
    logging.getLogger("theirs").debug("fine")
    assert (heard.getvalue(), stream.getvalue()) == ("fine\n", "")


def test_lines_go_to_what_stderr_is_at_the_moment():
    configure_logging()
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        get_logger("x").info("hello")
    assert records(stream)[0]["event"] == "hello"


def test_a_file_is_added_to_and_its_owners_only(tmp_path):
    file = tmp_path / "logs" / "model.jsonl"
    for number in range(2):
        configure_logging(file=file)
        get_logger("x").info("hello", number=number)
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [0, 1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_stream_may_take_bytes_only(tmp_path):
    for stream in (io.BytesIO(), (tmp_path / "log").open("w+b"), (tmp_path / "raw").open("w+b", buffering=0)):
        with stream:
            configure_logging(stream=stream)
            get_logger("x").info("ü")
            stream.seek(0)
            assert json.loads(stream.read())["event"] == "ü"


def test_a_stream_may_take_ascii_only():
    bytes_ = io.BytesIO()
    configure_logging(stream=io.TextIOWrapper(bytes_, encoding="ascii"))
    get_logger("x").info("ü😀", list=["é"])
    record = json.loads(bytes_.getvalue())
    assert (record["event"], record["list"]) == ("ü😀", ["é"])


def test_how_a_process_logs_is_known_to_it(tmp_path):
    assert configured() is None
    configure(Settings(log_burst=7), logging.DEBUG, file=tmp_path / "log")
    known = configured()
    configure(Settings(), stream=io.StringIO())
    assert configured() is None
    known.configure()
    get_logger("x").debug("again")
    assert json.loads((tmp_path / "log").read_text())["event"] == "again"
    assert configured() == known


def test_lines_can_be_captured_as_structlog_does():
    configure_logging(stream=io.StringIO())
    log = get_logger("x")
    log.info("used before")
    with structlog.testing.capture_logs() as captured:
        log.info("hello", n=1)
    assert captured == [{"event": "hello", "n": 1, "log_level": "info"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"level": "loud"}, "configure_logging(level='loud'): write one of debug, info, warning, error, critical, or"),
        ({"level": 1.5}, "configure_logging(level=1.5): write one of"),
        ({"format": "xml"}, "configure_logging(format='xml'): write one of auto, json, console"),
        ({"stream": sys.stderr, "file": "x"}, "configure_logging(): a stream and a file; give one of them"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(values, message):
    with pytest.raises(ValueError) as error:
        configure_logging(**values)
    assert str(error.value).startswith(message)
    assert not structlog.is_configured()


@pytest.mark.parametrize("level", ["WARNING", " warn ", 30])
def test_a_level_may_be_written_in_several_ways(level):
    configure_logging(stream=(stream := io.StringIO()), level=level)
    get_logger("x").info("no")
    get_logger("x").warning("yes")
    assert len(records(stream)) == 1


def test_a_setting_that_cannot_be_used_has_its_default(monkeypatch):
    monkeypatch.setenv("BATCHOBS_LOG_MAX_BYTES", "many")
    configure_logging(stream=(stream := io.StringIO()))
    get_logger("x").info("hello")
    assert records(stream)[-1]["event"] == "hello"


# --- Where Airflow has configured logging ------------------------------------------------------------------------


def test_in_an_airflow_task_it_does_nothing_and_the_lines_go_airflows_way():
    code = """
from airflow.sdk._shared.logging.structlog import configure_logging as airflows
import io
out = io.BytesIO()
airflows(json_output=True, log_level="INFO", output=out)
handlers = logging.getLogger().handlers[:]
configure_logging(level="debug")
assert logging.getLogger().handlers == handlers
log.info("hello %s", "world", n=1)
log.debug("not")
log.info("%d", "no number", extra={"rows": 3})
log.info(object(), event=1)
sys.stdout.write(out.getvalue().decode())
"""
    lines = in_process(code, stdout=subprocess.PIPE).stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(record["event"], record["logger"]) for record in found[:2]] == [
        ("hello world", "ours"),
        ("%d no number", "ours"),
    ]
    assert (found[0]["n"], found[1]["rows"], len(found)) == (1, 3, 3)


# --- Where the output fails --------------------------------------------------------------------------------------

SAY = """
configure_logging()
for n in range(3):
    log.info("hello", n=n); theirs.info("hello"); warnings.warn("hello")
print("went on")
"""


@pytest.mark.parametrize("before", ["os.close(2)", "sys.stderr.close()", "sys.stderr = None", "del sys.stderr"])
def test_a_stderr_that_is_gone_is_no_reason_to_fail(before):
    done = in_process(f"{before}\n{SAY}sys.stdout.flush(); os._exit(0)", stdout=subprocess.PIPE)
    assert done.stdout == "went on\n"


def test_a_full_disk_is_no_reason_to_fail():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = in_process(f"{SAY}sys.stdout.flush(); os._exit(0)", stdout=subprocess.PIPE, stderr=full)
    assert done.stdout == "went on\n"


class Failing(io.StringIO):
    """Fails while it is told to."""

    fails = True

    def write(self, text: str) -> int:
        if self.fails:
            raise OSError("full")
        return super().write(text)


def test_lines_that_could_not_be_written_are_told():
    stream = Failing()
    configure_logging(stream=stream)
    log = get_logger("x")
    log.info("one")
    log.info("two")
    stream.fails = False
    log.info("three")
    log.info("four")
    three, about, four = records(stream)
    assert (three["event"], four["event"]) == ("three", "four")
    assert about["event"] == "2 log lines before this one may be lost: writing failed (OSError)"


def test_a_pipe_that_takes_half_a_line_does_not_glue_two():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(writing, "wb", buffering=0) as stream, open(reading, "rb", buffering=0) as reader:  # noqa: PTH123
        configure_logging(stream=stream)
        log = get_logger("x")
        for number in range(20):
            log.info("x" * 10_000, number=number)
        data = reader.read(1 << 20)
        log.info("after")
        data += reader.read(1 << 20)
    *whole, last = data.decode().splitlines()[-3:]
    assert "may be lost" in last
    assert json.loads(whole[-1])["event"] == "after"
    with pytest.raises(ValueError):
        json.loads(whole[-2])


def test_a_stream_that_logs_what_it_writes_comes_to_an_end():
    class Loops(io.StringIO):
        def write(self, text: str) -> int:
            get_logger("loops").info("written")
            return super().write(text)

    configure_logging(stream=(stream := Loops()))
    get_logger("x").info("hello")
    assert 1 <= len(records(stream)) < 10


def test_a_signal_handler_may_log_while_a_line_is_written():
    log = get_logger("x")

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if '"line"' in text:
                signal.raise_signal(signal.SIGUSR1)
            return super().write(text)

    configure_logging(stream=(stream := Interrupted()))
    before = signal.signal(signal.SIGUSR1, lambda *_: log.info("signal"))
    try:
        log.info("line")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [record["event"] for record in records(stream)] == ["line", "signal"]


def test_a_child_that_is_forked_while_a_line_is_written_logs(tmp_path):
    entered, leave = threading.Event(), threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            entered.set()
            leave.wait(10)
            return super().write(text)

    configure(Settings(), stream=Slow())
    log = get_logger("x")
    thread = threading.Thread(target=log.info, args=("slow",))
    thread.start()
    entered.wait(10)
    signal.alarm(20)
    try:
        (record,) = logged_by_child(tmp_path / "log", lambda: log.info("child"))
    finally:
        signal.alarm(0)
        leave.set()
        thread.join()
    assert record["event"] == "child"


def test_threads_write_whole_lines_in_their_order(tmp_path):
    configure(Settings(), file=tmp_path / "log")
    log = get_logger("x")

    def say(thread: int) -> None:
        for number in range(500):
            log.info("line", thread=thread, number=number, text="x" * number)

    threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(found) == 2000
    for number in range(4):
        assert [record["number"] for record in found if record["thread"] == number] == list(range(500))
