"""
A crontab whose jobs are observed: `batchobs run` before each command, and away again.

A command that is one program with its arguments stays as it is, behind `batchobs run ... --`; its redirections then
hold for both, so that what it prints is seen on its way. What needs a shell, which `batchobs run` is not, is given to
the shell that cron would have given it to, as one quoted word. Either way cron takes the percent signs as before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from batch_observability.cron.crontab import MAX_COMMAND, Job, Line, encoded, read, shown, split_stdin
from batch_observability.cron.naming import name_of_script

PROGRAM = "batchobs"
# Shells that read what is quoted here as POSIX says.
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})
_PLAIN = r"[A-Za-z0-9_./+@:,=-]+"
_WORD = r"(?:[^\s'\"\\%;&|<>()$`*?\[\]{}~#!]+|'[^'\\%]*')"
_WRAPPED = re.compile(rf"(?:[A-Za-z0-9_./+@-]*/)?{PROGRAM} run (?:--[a-z][a-z-]*(?:[ =](?!-){_WORD})? )*-- ", re.ASCII)
_QUOTED_SCRIPT = re.compile(r"((?:/[A-Za-z0-9_.+-]+)+) -c ('(?:[^']|'\\'')*')", re.DOTALL)
# One program with its arguments, quoted or not, and redirections to files.
_DOUBLE = r'"(?:[^"\\`$]|\\.|\$(?![(]))*"'
_ARGUMENT = rf"(?:[^\s'\"\\;&|<>()`$#\r\n]|'[^']*'|{_DOUBLE}|\\.|\$[A-Za-z_]|\$\{{[A-Za-z_]\w*\}}|(?<=\S)\#)+"
_REDIRECTION = rf"(?:\d?>>?[ \t]*{_ARGUMENT}|\d?>&[ \t]*\d|\d?<[ \t]*{_ARGUMENT})"
_FIRST = r"(?:(?:~|\$HOME|\$\{HOME\})?(?:/[A-Za-z0-9_.+@:,-]+)+|[A-Za-z0-9_.+@:,-]+(?:/[A-Za-z0-9_.+@:,-]+)*)"
_PROGRAM = re.compile(rf"({_FIRST})((?:[ \t]+(?:{_REDIRECTION}|{_ARGUMENT}))*)[ \t]*", re.ASCII)
# Words that the shell does not run as programs (POSIX, bash and zsh); those that it also could are among them.
_OF_THE_SHELL = (
    ". : [ alias bg bind break builtin caller case cd command compgen complete continue coproc declare dirs disown do "
    "done echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help history if in "
    "jobs kill let local logout mapfile nocorrect noglob popd print printf pushd pwd read readarray readonly repeat "
    "return select set shift shopt source suspend test then time times trap true type typeset ulimit umask unalias "
    "unset until wait whence while"
)


@dataclass(frozen=True)
class Wrapped:
    """
    A line with what it became.

    Attributes:
        line: as it was.
        text: as it is now; the same if it is left alone.
        model: that it is observed as, "" if it is left alone.
        problem: why it is left alone although it is a job; "" if nothing is.
    """

    line: Line
    text: str
    model: str = ""
    problem: str = ""


def wrap(text: str, *, system: bool = False, program: Callable[[Job], str] = lambda _job: PROGRAM) -> list[Wrapped]:
    """
    Return the lines of a crontab with every job observed, and nothing else changed.

    What is observed already stays as it is; so does what cannot be observed, with the reason.

    Args:
        text: as `crontab.decoded` gives it.
        system: each job has a column that says who runs it.
        program: returns how a job is to call this command.
    """
    lines = read(text, system=system)
    taken = {name for line in lines if line.job and (name := model_of(line.job.command))}
    return list(_wrapped(lines, taken, program))


def unwrap(text: str, *, system: bool = False) -> list[Wrapped]:
    """Return the lines of a crontab with no job observed: what `wrap` changed is as it was, to the byte."""
    found = []
    for line in read(text, system=system):
        command = line.job and _unwrapped(line.job.command)
        if line.job and command:
            text = f"{line.job.lead}{command}{line.end}"
            found.append(Wrapped(line, text, model_of(line.job.command)))
        else:
            found.append(Wrapped(line, line.text))
    return found


def written(lines: Iterable[Wrapped]) -> str:
    """Return the crontab that these lines are."""
    return "".join(one.text for one in lines)


def is_wrapped(command: str) -> bool:
    """Whether a command is observed already, by `wrap` or by hand."""
    return re.match(rf"(?:\S*/)?{PROGRAM}[ \t]+run\b", command, re.ASCII) is not None


def model_of(command: str) -> str:
    """Return the model that an observed command names, "" if it names none."""
    return option_of(command, "model")


def option_of(command: str, name: str) -> str:
    """Return the value of an option of `batchobs run` in an observed command, "" if it has none."""
    if not is_wrapped(command):
        return ""
    options = re.split(r"[ \t]--[ \t]", command, maxsplit=1)[0]
    found = re.search(rf"[ \t]--{name}[ \t=]+(?:'([^']*)'|\"([^\"]*)\"|(\S+))", options)
    return next((value for value in found.groups() if value), "") if found else ""


def name_for(job: Job) -> str:
    """Return what a job is called if nobody says it."""
    return name_of_script(shown(job.script))


def _wrapped(lines: Iterable[Line], taken: set[str], program: Callable[[Job], str]) -> Iterator[Wrapped]:
    for line in lines:
        job = line.job
        if job is None or is_wrapped(job.command):
            yield Wrapped(line, line.text)
        elif job.shell.rpartition("/")[2] not in _SHELLS or not re.fullmatch(_PLAIN, job.shell, re.ASCII):
            yield Wrapped(
                line, line.text, problem=f"SHELL is {shown(job.shell)!r}: only jobs of a POSIX shell are wrapped"
            )
        else:
            model = _unique(name_for(job), taken)
            command = _command(job, model, program(job))
            if (length := len(encoded(command))) > MAX_COMMAND:
                problem = f"wrapped, its command would have {length} bytes, and cron takes {MAX_COMMAND}"
                yield Wrapped(line, line.text, problem=f"{problem}: put it into a script")
            else:
                taken.add(model)
                yield Wrapped(line, f"{job.lead}{command}{line.end}", model)


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique


def _command(job: Job, model: str, program: str) -> str:
    options = [f"--model {model}"]
    if not job.schedule.is_reboot:
        text = job.schedule.text
        options.append(f"--schedule {text if text.startswith('@') else quoted(text)}")
    if job.timezone and re.fullmatch(_PLAIN, job.timezone, re.ASCII):
        options.append(f"--timezone {job.timezone}")
    script, stdin = split_stdin(job.command)
    run = script if _is_one_program(script) else f"{job.shell} -c {quoted(script)}"
    return f"{program} run {' '.join(options)} -- {run}{stdin}"


def _unwrapped(command: str) -> str:
    """Return a command that is no longer observed, "" if it is not as `wrap` writes it."""
    found = _WRAPPED.match(command)
    if not found:
        return ""
    script, stdin = split_stdin(command[found.end() :])
    given = _QUOTED_SCRIPT.fullmatch(script)
    if given and given[1].rpartition("/")[2] in _SHELLS:
        inner = given[2][1:-1].replace("'\\''", "'")
        if not _is_one_program(inner):
            return inner + stdin
    return script + stdin if _is_one_program(script) else ""


def quoted(text: str) -> str:
    """Return a text as one word of a shell; cron's percent signs and their backslashes stay as they are."""
    return "'" + text.replace("'", "'\\''") + "'"


def _is_one_program(script: str) -> bool:
    """Whether a script is one program with its arguments, so that it can be run without a shell."""
    found = _PROGRAM.fullmatch(script.replace("\\%", "%"))
    if not found or found[1] in _OF_THE_SHELL.split():
        return False
    # As written it would be taken for one that was quoted here.
    return not ((given := _QUOTED_SCRIPT.fullmatch(script)) and given[1].rpartition("/")[2] in _SHELLS)
