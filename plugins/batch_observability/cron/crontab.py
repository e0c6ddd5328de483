"""
The lines of a crontab, each as it is written: what cron makes of it, and what is wrong with it.

Text is read from bytes by `decoded`, which loses none of them, valid UTF-8 or not; the lines together are the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from batch_observability.cron.schedule import Schedule, ScheduleError, local_zone, parse, zone_of

SHELL, TIMEZONE, PATH = "SHELL", "CRON_TZ", "PATH"
# What cron gives a job that has none of its own (crontab(5)).
_DEFAULTS = {SHELL: "/bin/sh", PATH: "/usr/bin:/bin"}
# As Debian's cron takes no command of 1000 bytes (MAX_COMMAND), with what ends it.
MAX_COMMAND = 998

_VARIABLE = re.compile(r"""[ \t]*("[^"\n]*"|'[^'\n]*'|[^\s=#"'][^\s=]*)[ \t]*=[ \t]*(.*)""", re.ASCII | re.DOTALL)
# With a minus before it, some crons do not log the job.
_SCHEDULE = re.compile(r"([ \t]*-?)(@[^ \t]*|(?:[^ \t]+[ \t]+){4}[^ \t]+)([ \t]+)(.*)", re.DOTALL)
_USER = re.compile(r"([^ \t]+)([ \t]+)(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Job:
    """
    What a line of a crontab runs.

    Attributes:
        lead: what stands before the command: schedule, user and the space around them.
        schedule: when it is due.
        user: who runs it, "" if the crontab has no such column.
        command: as it is written, with what stands for its stdin.
        variables: of the crontab that hold for it.
    """

    lead: str
    schedule: Schedule
    user: str
    command: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def shell(self) -> str:
        """The shell that cron gives the command to."""
        return self.variables.get(SHELL) or _DEFAULTS[SHELL]

    @property
    def path(self) -> str:
        """Where that shell looks for programs."""
        return self.variables.get(PATH) or _DEFAULTS[PATH]

    @property
    def timezone(self) -> str:
        """The time zone that the crontab names, "" if it names none."""
        return self.variables.get(TIMEZONE, "")

    @property
    def script(self) -> str:
        """What the shell is given: the command without its stdin, as the shell gets it."""
        return split_stdin(self.command)[0].replace("\\%", "%")

    @property
    def stdin(self) -> str | None:
        """What the command is given on its stdin; None if that is empty."""
        written = split_stdin(self.command)[1]
        if len(written) < 2:
            return None
        text = re.sub(r"\\?%", lambda found: "%" if len(found[0]) > 1 else "\n", written[1:])
        return text if text.endswith("\n") else f"{text}\n"


@dataclass(frozen=True, kw_only=True)
class Line:
    """
    A line of a crontab.

    Attributes:
        number: from 1.
        text: as it is written, with its end.
        job: None if it runs nothing.
        problem: what is wrong and what to do about it; "" if nothing is.
    """

    number: int
    text: str
    job: Job | None = None
    problem: str = ""

    @property
    def end(self) -> str:
        """What ends it."""
        return "\n" if self.text.endswith("\n") else ""


def decoded(content: bytes) -> str:
    """Return the text of a crontab; `encoded` gives the very bytes back."""
    return content.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes of a text that `decoded` gave."""
    return text.encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """Return a text of a crontab as one that can be printed."""
    return encoded(text).decode("utf-8", "backslashreplace")


def is_system(path: Path) -> bool:
    """Whether the crontab at a path has a column that says who runs a job."""
    return path.parent.name == "cron.d" or path == Path("/etc/crontab")


def read(text: str, *, system: bool = False) -> list[Line]:
    """
    Read a crontab.

    Args:
        text: as `decoded` gives it.
        system: each job has a column that says who runs it.
    """
    return list(_lines(text, system=system))


def _lines(text: str, *, system: bool) -> Iterator[Line]:
    variables: dict[str, str] = {}
    # Not by splitlines(), which knows more ends of lines than cron.
    for number, line in enumerate(re.findall(r"[^\n]*\n|[^\n]+", text), 1):
        content = line.removesuffix("\n")
        bare = content.strip(" \t")
        if not bare or bare.startswith("#"):
            yield Line(number=number, text=line)
        elif variable := _VARIABLE.fullmatch(content):
            name, value = _unquoted(variable[1]), _unquoted(variable[2].rstrip(" \t\r"))
            variables = {**variables, name: value}
            yield Line(number=number, text=line, problem=_wrong_zone(name, value) or _wrong_end(line))
        else:
            yield _job_line(number, line, variables, system=system)


def _job_line(number: int, line: str, variables: dict[str, str], *, system: bool) -> Line:
    found = _SCHEDULE.fullmatch(line.removesuffix("\n"))
    rest = found and (_USER.fullmatch(found[4]) if system else found[4])
    if not found or not rest:
        columns = "schedule, user and command" if system else "schedule and command"
        example = f"10 3 * * * {'root ' if system else ''}/opt/score.py"
        seen = shown(line.strip())
        return Line(number=number, text=line, problem=f"{seen!r} is no job: write {columns}, for example {example}")
    user, command, before = ("", rest, "") if isinstance(rest, str) else (rest[1], rest[3], rest[1] + rest[2])
    try:
        schedule = parse(shown(found[2]), _zone(variables))
    except ScheduleError as error:
        return Line(number=number, text=line, problem=str(error))
    if not command.strip(" \t\r"):
        problem = f"{shown(line.strip())!r} has no command: write one after the {'user' if system else 'schedule'}"
        return Line(number=number, text=line, problem=problem)
    lead = f"{found[1]}{found[2]}{found[3]}{before}"
    job = Job(lead=lead, schedule=schedule, user=user, command=command, variables=variables)
    return Line(number=number, text=line, job=job, problem=_wrong_command(job) or _wrong_end(line))


def _zone(variables: dict[str, str]) -> ZoneInfo:
    name = variables.get(TIMEZONE, "")
    try:
        return zone_of(name) if name else local_zone()
    except ScheduleError:
        # It is told where it is written.
        return local_zone()


def _wrong_zone(name: str, value: str) -> str:
    if name == TIMEZONE and value:
        try:
            zone_of(shown(value))
        except ScheduleError as error:
            return str(error)
    return ""


def _wrong_command(job: Job) -> str:
    if (length := len(encoded(job.command))) > MAX_COMMAND:
        return f"its command has {length} bytes, and cron takes {MAX_COMMAND}: put it into a script"
    return ""


def _wrong_end(line: str) -> str:
    if line.endswith("\r\n"):
        return r"it ends with \r\n, and cron takes the \r for a part of it: end lines with \n (dos2unix does that)"
    return "" if line.endswith("\n") else "no newline ends it, and cron leaves it out: add one"


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def split_stdin(command: str) -> tuple[str, str]:
    """Return what the shell is given, and the rest from the first percent sign that no backslash stands before."""
    escaped = False
    for place, letter in enumerate(command):
        if letter == "%" and not escaped:
            return command[:place], command[place:]
        # As cron reads it: of two backslashes the second escapes nothing.
        escaped = letter == "\\" and not escaped
    return command, ""
