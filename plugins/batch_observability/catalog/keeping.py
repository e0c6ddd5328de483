"""
What was read of a catalog, kept as JSON for those who start with each job and have no time to read YAML.

The file `<state>/catalog.json` has a line for each model, so that who wants one of three hundred reads one: its first
line says what it was made of and which tasks are which model. It holds as long as the files are what they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batch_observability.catalog.matching import is_open
from batch_observability.catalog.values import Mistake
from batch_observability.private import private_folder, write_private

FILE = "catalog.json"
# Another number for another form.
_FORM = 3


@dataclass
class Record:
    """
    A catalog as plain values.

    Attributes:
        files: that could be read.
        mistakes: what is wrong in them, and with others.
        owners: contact and more by team.
        models: values, lines and file by name, as `reading.cataloged` takes them.
    """

    files: list[str]
    mistakes: list[Mistake]
    owners: dict[str, dict[str, str]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def patterns(self) -> dict[str, list[tuple[str, str, str]]]:
        """Return name, DAG id and task id of each match by DAG id; under "" those that are open to several DAGs."""
        found: dict[str, list[tuple[str, str, str]]] = {}
        for name, one in self.models.items():
            for match in one["values"].get("match", ()):
                dag_id, task_id = match.get("dag_id", "*"), match.get("task_id", "*")
                found.setdefault("" if is_open(dag_id) else dag_id, []).append((name, dag_id, task_id))
        return found


def stamp_of(paths: Iterable[Path], files: Iterable[Path]) -> list[Any]:
    """Return what is another value when a file has changed, has come or has gone."""
    return [_FORM, [str(path.absolute()) for path in paths], [[str(path), *_of_file(path)] for path in files]]


def _of_file(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def kept(cache: Path, stamp: list[Any]) -> Record | None:
    """Return what was kept of files that have not changed since."""
    head, lines = opened(cache, stamp)
    if head is None:
        return None
    try:
        mistakes = [Mistake(**one) for one in head["mistakes"]]
        models = {name: json.loads(lines[number]) for name, number in head["models"].items()}
        return Record(list(head["files"]), mistakes, dict(head["owners"]), models)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def opened(cache: Path, stamp: list[Any]) -> tuple[dict[str, Any] | None, list[bytes]]:
    """Return the first line of what was kept, and all lines; None if there is none that holds."""
    try:
        lines = Path(cache, FILE).read_bytes().split(b"\n")
        head = json.loads(lines[0])
        return (head, lines) if head["of"] == stamp else (None, [])
    except (OSError, ValueError, KeyError, TypeError):
        return None, []


def head_of(stamp: list[Any], record: Record) -> dict[str, Any]:
    """Return what the first line says: what it was made of, and what it takes to find a model."""
    return {
        "of": stamp,
        "files": record.files,
        "mistakes": [asdict(one) for one in record.mistakes],
        "owners": record.owners,
        "patterns": record.patterns(),
        "models": {name: number for number, name in enumerate(record.models, 1)},
    }


def keep(cache: Path, stamp: list[Any], record: Record) -> None:
    """Keep what was read; where that cannot be, it is read again the next time."""
    lines = [json.dumps(one) for one in (head_of(stamp, record), *record.models.values())]
    try:
        private_folder(cache)
        write_private(cache / FILE, "\n".join([*lines, ""]))
    except OSError:
        return
