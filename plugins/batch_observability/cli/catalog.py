"""
`batchobs catalog`: what is wrong with a catalog, its format for editors, and a first one of what is there already.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_observability.catalog import Mistake, read
from batch_observability.catalog.places import paths_of, usual
from batch_observability.cli.catalogs import wrong_schedules
from batch_observability.cli.options import load_settings
from batch_observability.cli.words import one_line
from batch_observability.config import ConfigError

_WRONG = 2
_STDIN = "-"


def add_parser(commands: Any) -> None:
    """Add `catalog`; each of its commands sets `run`, which takes the options and returns the exit code."""
    catalog = commands.add_parser("catalog", help="check batch_models.yaml, complete it in editors, write a first one")
    verbs = catalog.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    check = _verb(verbs, "check", "say all that is wrong, a line each; the exit code is 0 only if nothing is", _check)
    check.add_argument("files", nargs="*", type=Path, metavar="FILE", help="files and folders (BATCHOBS_CATALOG)")
    _verb(verbs, "schema", "print the format as JSON Schema, by which editors complete and check it", _schema)
    init = _verb(verbs, "init", "write a first catalog from the DAGs of a folder and a crontab", _init)
    init.add_argument("--dags", type=Path, metavar="FOLDER", help="of DAG files, which are read and not run")
    init.add_argument("--crontab", metavar="FILE", help="a crontab, - for stdin")
    init.add_argument("--system", action="store_true", help="the crontab says who runs each job, as /etc/crontab does")
    init.add_argument("--out", type=Path, metavar="FILE", help="where to write it (stdout)")
    init.add_argument("--force", action="store_true", help="also over a file that is there")


def _verb(verbs: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    verb.set_defaults(run=run)
    return verb


def _check(options: argparse.Namespace) -> int:
    paths = options.files or paths_of(load_settings())
    if not paths:
        raise ConfigError(f"there is no catalog: name its files, set BATCHOBS_CATALOG, or write {usual()[0]}")
    catalog, mistakes = read(paths)
    places = {str(path): number for number, path in enumerate(catalog.files)}

    def place(mistake: Mistake) -> tuple[int, int]:
        return places.get(mistake.file, -1), mistake.line

    mistakes = sorted([*mistakes, *wrong_schedules(catalog)], key=place)
    for mistake in mistakes:
        print(one_line(str(mistake)))  # noqa: T201  (the command's voice)
    if mistakes:
        return _WRONG
    models, files = len(catalog.models), len(catalog.files)
    print(f"nothing is wrong ({_counted(models, 'model')} in {_counted(files, 'file')})")  # noqa: T201  (as above)
    return 0


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _schema(_options: argparse.Namespace) -> int:
    from batch_observability.catalog.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))  # noqa: T201  (the command's voice)
    return 0


def _init(options: argparse.Namespace) -> int:
    from batch_observability.cli.dag_files import tasks_of
    from batch_observability.cli.first_catalog import first_catalog
    from batch_observability.cron import crontab

    if options.dags is None and options.crontab is None:
        raise ConfigError("catalog init: there is nothing to begin with: write --dags FOLDER, --crontab FILE, or both")
    tasks = tasks_of(options.dags) if options.dags is not None else []
    lines = []
    if options.crontab is not None:
        content, system = _content(options.crontab), options.system or crontab.is_system(Path(options.crontab))
        lines = crontab.read(crontab.decoded(content), system=system)
    text = first_catalog(tasks, lines)
    if options.out is None:
        sys.stdout.write(text)
        return 0
    try:
        with options.out.open("w" if options.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{options.out} is there already: name another file, or add --force") from None
    except OSError as error:
        raise ConfigError(f"{options.out} cannot be written: {error.strerror}; name another file") from None
    return 0


def _content(name: str) -> bytes:
    if name == _STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"crontab {name} cannot be read: {error.strerror}; name another, or - for stdin") from None
