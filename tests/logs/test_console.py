"""What a person sees at a terminal."""

from __future__ import annotations

import io
import re
import time

import pytest

from batch_observability.config import Settings
from batch_observability.logs import configure_logging, get_logger
from batch_observability.logs.configure import configure
from batch_observability.run import Run, set_current_run
from tests.unit.conftest import run_context

log = get_logger("console")


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _put_back(logging_put_back):
    return None


@pytest.fixture
def terminal(monkeypatch):
    """A terminal without colours that lines go to."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure_logging(stream=stream)
    return stream


def test_time_stage_level_and_message_are_columns(terminal):
    started = Run(run_context(start_ns=time.time_ns() - 75_000_000_000))
    set_current_run(started)
    with started.stage("features"):
        log.info("joined", rows=3, table="flights", note="two words")
    set_current_run(None)
    log.warning("alone")
    within, alone = terminal.getvalue().splitlines()
    assert re.fullmatch(r' 00:01:1\d features     info     joined {25}rows=3 table=flights note="two words"', within), (
        within
    )
    assert re.fullmatch(r" \d\d:\d\d:\d\d {14}warning  alone", alone)


def test_the_first_minute_is_in_milliseconds(terminal, run):
    log.info("soon")
    assert re.match(r"   0\.\d{3}s ", terminal.getvalue())


def test_an_error_is_below_its_line(terminal):
    try:
        raise LookupError("lost")
    except LookupError:
        log.exception("failed", n=1)
    first, *rest = terminal.getvalue().splitlines()
    assert first.endswith("error    failed                         n=1")
    assert rest[0] == "  Traceback (most recent call last):"
    assert rest[-1] == "  LookupError: lost"


def test_a_message_does_not_move_the_cursor(terminal):
    log.info("\x1b[2Jgone\r", field="\x1b[31m\x9b")
    assert "\x1b" not in terminal.getvalue()
    assert "\\x1b[2Jgone\\r" in terminal.getvalue()


def test_a_message_of_several_lines_does_not_look_like_several(terminal):
    log.info("first\n 12:00:00 forged", **{"\x1b[2Jname\nforged": 1})
    _, second = terminal.getvalue().splitlines()
    assert second.startswith("   12:00:00 forged")
    assert "\x1b" not in terminal.getvalue()
    assert '"\\u001b[2Jname\\nforged"=1' in second


def test_secrets_are_masked(terminal):
    secret = "hunter2" + "hunter2"
    log.info("login", password=secret, url=f"https://me:{secret}@host")
    assert secret not in terminal.getvalue()


def test_it_is_coloured_on_a_terminal_only(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    configure_logging(stream=(terminal := Terminal()))
    log.error("red")
    configure(Settings(), format="console", stream=(file := io.StringIO()))
    log.error("plain")
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in file.getvalue()


def test_what_is_no_terminal_gets_json():
    configure_logging(stream=(stream := io.StringIO()))
    log.info("x")
    assert stream.getvalue().startswith('{"timestamp": "')
