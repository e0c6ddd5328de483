"""
`batchobs crontab`: what a crontab runs and when, its jobs observed, and what is wrong with it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch_observability.catalog import Catalog
from batch_observability.cli.catalogs import add_catalog, catalog_of
from batch_observability.cli.options import is_blank, load_settings
from batch_observability.cli.own_path import own_path
from batch_observability.cli.words import aligned, document, one_line
from batch_observability.config import ConfigError, Settings
from batch_observability.cron import declaring, known, wrapping
from batch_observability.cron.crontab import Job, decoded, encoded, is_system, read, shown
from batch_observability.cron.schedule import NICKNAMES
from batch_observability.cron.wrapping import Wrapped
from batch_observability.ledger.store import Ledger, LedgerError
from batch_observability.model import BatchModel

_PROBLEMS = 1
_STDIN = "-"
_NOT_OBSERVED = "not observed"
_COLUMNS = ("model", "due", "next", "owner")


def add_parser(commands: Any) -> None:
    """Add `crontab`; each of its commands sets `run`, which takes the options and returns the exit code."""
    crontab = commands.add_parser("crontab", help="see what a crontab runs, and have its jobs observed")
    verbs = crontab.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    listed = _verb(verbs, "list", "say what runs, in words, when it is due next, whose it is and what is wrong", _list)
    listed.add_argument("--json", action="store_true", help="print one JSON object")
    wrap = _verb(verbs, "wrap", "print the crontab with every job observed and nothing else changed", _wrap)
    unwrap = _verb(verbs, "unwrap", "print the crontab as it was before wrap", _unwrap)
    for one in (wrap, unwrap):
        one.add_argument("--diff", action="store_true", help="print what would change, and expect nothing of it")
    check = _verb(verbs, "check", "say what is wrong, a line each; the exit code is 0 only if nothing is", _check)
    for one in (listed, check):
        add_catalog(one, "with owners of models")
    forget = verbs.add_parser("forget", help="expect jobs no more, which are in no crontab any more")
    forget.add_argument("names", nargs="+", metavar="JOB", help="name of a job, as list says it")
    forget.set_defaults(run=_forget)


def _verb(verbs: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Any:
    verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    verb.add_argument("file", nargs="?", metavar="FILE", help="a crontab, - for stdin; default: what crontab -l says")
    verb.add_argument("--system", action="store_true", help="it says who runs each job, as /etc/crontab does")
    verb.set_defaults(run=run)
    return verb


@dataclass(frozen=True)
class _Crontab:
    name: str
    text: str
    system: bool


def _opened(options: argparse.Namespace) -> _Crontab:
    if options.file is None:
        return _Crontab("crontab", decoded(_own_crontab()), system=options.system)
    if options.file == _STDIN:
        return _Crontab(_STDIN, decoded(sys.stdin.buffer.read()), system=options.system)
    path = Path(options.file)
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"crontab {path} cannot be read: {error.strerror}; name another, or - for stdin") from None
    return _Crontab(str(path), text, system=options.system or is_system(path))


def _own_crontab() -> bytes:
    try:
        found = subprocess.run(["crontab", "-l"], capture_output=True, check=False)  # noqa: S607  (the one of the PATH)
    except OSError:
        raise ConfigError("crontab -l cannot be run: name a file, or - for stdin") from None
    if found.returncode:
        said = one_line(found.stderr.decode(errors="backslashreplace")) or f"it ended with {found.returncode}"
        raise ConfigError(f"crontab -l: {said}; name a file, or - for stdin")
    return found.stdout


# --- list and check ----------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    crontab, settings = _opened(options), load_settings()
    owners = _owners(settings, catalog_of(options, settings))
    problems = _problems(crontab)
    rows = []
    for line in read(crontab.text, system=crontab.system):
        found = problems.get(line.number, [])
        if line.job is not None:
            rows.append(_row(line.number, line.job, owners, found))
        elif found:
            rows.append({"line": line.number, "problems": found})
    if options.json:
        text = document({"file": crontab.name, "jobs": rows})
    elif rows:
        cells = [[str(row["line"]), *map(row.get, _COLUMNS), "; ".join(row["problems"])] for row in rows]
        table = [[cell or "-" for cell in one[:-1]] + one[-1:] for one in cells]
        text = "\n".join(aligned([["LINE", "MODEL", "DUE", "NEXT", "OWNER", "PROBLEMS"], *table]))
    else:
        text = f"{crontab.name} runs nothing"
    print(text)  # noqa: T201  (the command's voice)
    return 0


def _row(number: int, job: Job, owners: dict[str, str], problems: list[str]) -> dict[str, Any]:
    model = wrapping.model_of(job.command) or wrapping.name_for(job)
    upcoming = job.schedule.next(datetime.now(UTC))
    due = upcoming.astimezone(job.schedule.zone) if upcoming else None
    return {
        "line": number,
        "model": model,
        "due": f"{job.schedule.words()}{f' ({shown(job.timezone)})' if job.timezone else ''}",
        "next": f"{due:%Y-%m-%d %H:%M %Z}" if due else "",
        "next_due": due.isoformat() if due else None,
        "owner": owners.get(model, "") or wrapping.option_of(job.command, "owner"),
        "schedule": job.schedule.text,
        "user": shown(job.user),
        "observed": wrapping.is_wrapped(job.command),
        "problems": [*([] if wrapping.is_wrapped(job.command) else [_NOT_OBSERVED]), *problems],
    }


def _check(options: argparse.Namespace) -> int:
    crontab = _opened(options)
    for one in catalog_of(options, load_settings()).scheduled():
        declaring.check(one)
    found = _problems(crontab)
    for number, problems in sorted(found.items()):
        for problem in problems:
            print(f"{crontab.name}:{number}: {one_line(problem)}")  # noqa: T201  (the command's voice)
    return _PROBLEMS if found else 0


def _owners(settings: Settings, catalog: Catalog) -> dict[str, str]:
    """Return the owner of each model, as jobs that ran here or the catalog say."""
    ran = {name: str(job.model.get("owner", "")) for name, job in known.known(settings.state_path).items()}
    return {**ran, **{name: one.model.owner for name, one in catalog.models.items() if one.model.owner}}


def _problems(crontab: _Crontab) -> dict[int, list[str]]:
    """Return what is wrong, by line."""
    found: dict[int, list[str]] = {}
    first: dict[str, int] = {}
    for line in wrapping.wrap(crontab.text, system=crontab.system, program=_program):
        number, job = line.line.number, line.line.job
        said = [one for one in (line.line.problem, line.problem) if one]
        if job is not None and wrapping.is_wrapped(job.command):
            said += _of_wrapped(job)
            model = wrapping.model_of(job.command)
            if model and (other := first.setdefault(model, number)) != number:
                said.append(f"model {model!r} is in line {other} too: give one of them another name by --model")
        if said:
            found[number] = said
    return found


def _of_wrapped(job: Job) -> list[str]:
    said = []
    schedule, zone = (wrapping.option_of(job.command, name) for name in ("schedule", "timezone"))
    text = NICKNAMES.get(job.schedule.text, job.schedule.text)
    if schedule and NICKNAMES.get(schedule, schedule).split() != text.split():
        said.append(f"--schedule is {schedule!r}, and the line is due {job.schedule.text!r}: write the same")
    if schedule and zone != job.timezone:
        said.append(f"--timezone is {zone!r}, and CRON_TZ is {job.timezone!r}: write the same")
    program = job.command.split()[0]
    if shutil.which(program, path=job.path) is None and not program.startswith("~"):
        said.append(f"{program!r} is not found on cron's PATH {shown(job.path)!r}: write {own_path()}")
    return said


# --- wrap and unwrap ---------------------------------------------------------------------------------------------


def _wrap(options: argparse.Namespace) -> int:
    crontab = _opened(options)
    lines = wrapping.wrap(crontab.text, system=crontab.system, program=_program)
    for line in lines:
        if line.problem or (line.line.problem and line.line.job is None):
            _complain(f"{crontab.name}:{line.line.number}: {line.problem or line.line.problem}")
    if not _print(crontab, lines, diff=options.diff):
        _expect([one for one in lines if one.model and one.line.job and _is_ours(one.line.job)])
    return 0


def _unwrap(options: argparse.Namespace) -> int:
    crontab = _opened(options)
    lines = wrapping.unwrap(crontab.text, system=crontab.system)
    if not _print(crontab, lines, diff=options.diff):
        _expect_no_more([one.model for one in lines if one.model and one.line.job and _is_ours(one.line.job)])
    return 0


def _forget(options: argparse.Namespace) -> int:
    names = _expect_no_more(options.names)
    if unknown := [name for name in options.names if name not in names]:
        here = ", ".join(sorted(known.known(load_settings().state_path))) or "none"
        raise ConfigError(f"job {unknown[0]!r} is not expected: write one of those that are ({here})")
    return 0


def _print(crontab: _Crontab, lines: list[Wrapped], *, diff: bool) -> bool:
    """Print a crontab, or what of it has changed; return whether it was that."""
    text = wrapping.written(lines)
    if diff:
        before, after = (re.findall(r"[^\n]*\n|[^\n]+", one) for one in (crontab.text, text))
        parts = difflib.unified_diff(before, after, crontab.name, f"{crontab.name} (after)")
        text = "".join(part if part.endswith("\n") else f"{part}\n\\ No newline at end of file\n" for part in parts)
    sys.stdout.flush()
    sys.stdout.buffer.write(encoded(text))
    sys.stdout.buffer.flush()
    return diff


def _is_ours(job: Job) -> bool:
    """Whether a job runs as who asks, and so with the same state."""
    try:
        return job.user in ("", pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return not job.user


def _expect(lines: Iterable[Wrapped]) -> None:
    """Have jobs looked for from now on: also one that never runs is missed then."""
    settings = load_settings()
    for line in lines:
        job = line.line.job
        if job is None or job.schedule.is_reboot or line.model in known.known(settings.state_path):
            continue
        model = BatchModel(name=line.model).as_text()
        try:
            known.note(settings.state_path, line.model, model, job.schedule.text, shown(job.timezone), by=known.BY_WRAP)
        except OSError as error:
            _complain(f"jobs are not expected until they run: {settings.state_path}: {error.strerror}")
            return


def _expect_no_more(names: Iterable[str]) -> set[str]:
    """Have jobs looked for no more, here and by others; return those that were."""
    settings, found = load_settings(), set()
    here = known.known(settings.state_path)
    for name in names:
        if name in here:
            known.forget(settings.state_path, name)
            found.add(name)
    if not is_blank(settings):
        ledger = Ledger(settings.ledger, settings.ledger_timeout)
        try:
            jobs = [one for one in ledger.jobs(known.SOURCE) if one.name in set(names) and one.schedule]
            ledger.apply_all([declaring.forgotten(one.name, one.model, time.time_ns()) for one in jobs])
            found |= {one.name for one in jobs}
        except LedgerError as error:
            _complain(str(error))
        finally:
            ledger.close()
    return found


def _program(job: Job) -> str:
    """Return how a job is to call this command: by its name, if cron finds it by that."""
    return wrapping.PROGRAM if shutil.which(wrapping.PROGRAM, path=job.path) else own_path()


def _complain(problem: str) -> None:
    print(f"batchobs: {one_line(problem)}", file=sys.stderr)  # noqa: T201  (the command's voice)
