"""Log lines that find their trace, with structlog and stdlib logging set up as a task process has them."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time

import pytest
import structlog

from batch_observability import BatchModel
from batch_observability.airflow import correlation
from batch_observability.airflow.correlation import correlate_logs
from batch_observability.run import Run, RunContext

MODEL = BatchModel("churn-score", version="3", service="churn", owner="team-risk")


def make_run(run_id="run-1"):
    model = {"name": MODEL.name, "version": MODEL.version, "service": MODEL.service}
    context = RunContext(run_id, "airflow", "dag.task", model, {}, trace_id=0xABC, span_id=0xDEF, env="test")
    return Run(context)


class Logs:
    """Where records end; each is a JSON object on a line."""

    def __init__(self):
        self.file = io.StringIO()

    @property
    def lines(self):
        return [json.loads(line) for line in self.file.getvalue().splitlines()]

    def line(self, event):
        (found,) = (line for line in self.lines if line["event"] == event)
        return found


@pytest.fixture
def logs(monkeypatch):
    """Structlog to JSON, and the root logger through it; all is put back afterwards."""
    logs = Logs()
    before = structlog.get_config()
    monkeypatch.setattr(correlation, "_run", None)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(logs.file),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(logs.file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[structlog.stdlib.add_log_level],
        )
    )
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    yield logs
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()


WRITERS = {
    "structlog": lambda text: structlog.get_logger("mine").info(text),
    "stdlib": lambda text: logging.getLogger("mine").warning(text),
    "stdlib in a thread": lambda text: in_thread(logging.getLogger("mine").warning, text),
    "structlog in a thread": lambda text: in_thread(structlog.get_logger("mine").warning, text),
    "print": print,
    "print in a thread": lambda text: in_thread(print, text),
    "print to stderr": lambda text: print(text, file=sys.stderr),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_line_carries_the_run_and_its_stage(logs, writer):
    write, run = WRITERS[writer], make_run()
    correlate_logs(run)
    write("before")
    with run.stage("load"):
        write("in load")
        with run.stage("parse") as parse:
            write("in parse")
    write("after")
    for event, stage in (("before", None), ("in load", "load"), ("in parse", "parse"), ("after", None)):
        line = logs.line(event)
        assert line["dd.trace_id"] == f"{0xABC:032x}"
        assert (line["dd.service"], line["dd.env"], line["dd.version"]) == ("churn", "test", "3")
        assert (line["batch_model.name"], line["batch_model.run_id"]) == ("churn-score", "run-1")
        assert line.get("batch_model.stage") == stage
    assert logs.line("before")["dd.span_id"] == str(0xDEF)
    assert logs.line("in parse")["dd.span_id"] == str(parse.span_id)


def test_a_logger_that_was_used_before_is_correlated_too(logs):
    log = structlog.get_logger("early").bind(who="me")
    log.info("early")
    correlate_logs(make_run())
    log.info("late")
    assert "dd.trace_id" not in logs.line("early")
    assert logs.line("late")["dd.trace_id"]
    assert logs.line("late")["who"] == "me"


def test_correlating_twice_is_correlating_once_with_the_later_run(logs):
    correlate_logs(make_run("run-1"))
    processors = structlog.get_config()["processors"]
    length, stdout = len(processors), sys.stdout
    correlate_logs(make_run("run-2"))
    assert len(structlog.get_config()["processors"]) == length
    assert sys.stdout is stdout
    print("once")
    assert logs.line("once")["batch_model.run_id"] == "run-2"
    formatter = logging.getLogger().handlers[0].formatter
    assert formatter.foreign_pre_chain.count(correlation.add_run_fields) == 1


def test_a_field_that_the_user_set_is_kept(logs):
    correlate_logs(make_run())
    structlog.get_logger("mine").info("mine", **{"dd.service": "my own"})
    assert logs.line("mine")["dd.service"] == "my own"


def test_printed_lines_are_whole_lines_at_their_level(logs):
    correlate_logs(make_run())
    sys.stdout.write("a")
    sys.stdout.write("b\n\n  \nsecond\nthi")
    print("rd")
    print("trouble", file=sys.stderr)
    assert [(line["event"], line["level"]) for line in logs.lines] == [
        ("ab", "info"),
        ("second", "info"),
        ("third", "info"),
        ("trouble", "error"),
    ]


def test_what_stands_in_for_stdout_is_a_stream(logs, tmp_path, monkeypatch):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        correlate_logs(make_run())
        assert sys.stdout.writable()
        assert not sys.stdout.isatty()
        assert sys.stdout.fileno() == file.fileno()
        assert sys.stdout.encoding == "utf-8"
        sys.stdout.buffer.write(b"bytes\n")
        sys.stdout.flush()
        assert sys.stdout.write("text\n") == 5
        monkeypatch.undo()
    assert (tmp_path / "out").read_bytes() == b"bytes\n"


def test_a_last_line_without_a_newline_is_not_lost(logs):
    correlate_logs(make_run())
    print("100 %", end="", flush=True)
    assert logs.lines == []
    sys.stdout.finish()
    assert [line["event"] for line in logs.lines] == ["100 %"]


def test_what_stands_in_for_stdout_can_all_that_a_text_stream_can(logs, tmp_path, monkeypatch):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        correlate_logs(make_run())
        stand_in = sys.stdout
        monkeypatch.undo()
        stand_in.reconfigure(line_buffering=True)
        for name in ("name", "mode", "errors", "newlines", "line_buffering"):
            assert getattr(stand_in, name) == getattr(file, name)


def test_a_long_line_in_small_pieces_takes_time_that_grows_with_its_length_only(logs):
    correlate_logs(make_run())

    def seconds(writes):
        began = time.process_time()
        for _ in range(writes):
            sys.stdout.write("." * 20)
        sys.stdout.write("\n")
        return time.process_time() - began

    short = min(seconds(4000) for _ in range(3))
    # 4 is linear, 16 quadratic.
    assert seconds(16000) / short < 9


def test_lines_of_several_threads_are_all_there(logs):
    correlate_logs(make_run())

    def write(name):
        for count in range(500):
            sys.stdout.write(f"{name}-{count}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({line["event"] for line in logs.lines}) == 500 * 4


def test_a_console_for_people_is_left_alone(logs):
    structlog.configure(processors=[structlog.dev.ConsoleRenderer(colors=False)])
    stdout = sys.stdout
    correlate_logs(make_run())
    assert sys.stdout is stdout
    structlog.get_logger("mine").info("for people")
    assert "dd.trace_id" not in logs.file.getvalue()
    assert len(structlog.get_config()["processors"]) == 1


def test_without_a_run_nothing_is_added():
    assert correlation.add_run_fields(None, "info", {"event": "x"})["event"] == "x"
