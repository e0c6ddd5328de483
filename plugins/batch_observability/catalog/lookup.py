"""
One model of a catalog for who has no time to read it all: a task that begins, a DAG that is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from batch_observability.catalog.keeping import Record, head_of, keep, opened, stamp_of
from batch_observability.catalog.matching import Pattern, Patterns
from batch_observability.catalog.places import paths_of
from batch_observability.catalog.reading import cataloged, files_of, joined
from batch_observability.catalog.values import Cataloged, Mistake, Owner
from batch_observability.config import Settings
from batch_observability.guard import guarded
from batch_observability.objective import ModelError


class Lookup:
    """
    A catalog of which what is asked for is read.

    Args:
        paths: of files and folders.
        cache: folder where what was read is kept.

    Attributes:
        mistakes: how many there are; and the first, "" if there is none.
    """

    def __init__(self, paths: Sequence[Path], cache: Path) -> None:
        files, wrong = files_of(paths)
        self.paths = list(paths)
        self._stamp = stamp_of(paths, files)
        self._lines: list[bytes] = []
        self._record: Record | None = None
        head, self._lines = opened(cache, self._stamp)
        if head is None:
            self._record = joined(files, wrong)
            keep(cache, self._stamp, self._record)
            head = head_of(self._stamp, self._record)
        self._models: dict[str, int] = head["models"]
        self._all_patterns: dict[str, list[Pattern]] = head["patterns"]
        self._patterns: tuple[str, Patterns] | None = None
        self._owners: dict[str, dict[str, str]] = head["owners"]
        self._read: dict[str, Cataloged | None] = {}
        said = head["mistakes"]
        self.mistakes = len(said)
        self.first_mistake = str(Mistake(**said[0])) if said else ""

    def is_current(self) -> bool:
        """Whether its files are what they were."""
        return stamp_of(self.paths, files_of(self.paths)[0]) == self._stamp

    def of_task(self, dag_id: str, task_id: str) -> Cataloged | None:
        """Return the model that a task is, the closest match of several; None if it is none."""
        if self._patterns is None or self._patterns[0] != dag_id:
            # The tasks of a DAG are asked for one after the other; to make patterns of all takes too long.
            begins = (dag_id[:1], "*", "?", "[")
            is_open = (one for one in self._all_patterns.get("", ()) if one[1].startswith(begins))
            self._patterns = dag_id, Patterns((*self._all_patterns.get(dag_id, ()), *is_open))
        names = self._patterns[1].names(dag_id, task_id)
        return self.named(names[0]) if names else None

    def named(self, name: str) -> Cataloged | None:
        """Return a model by its name; None if the catalog does not have it."""
        if name not in self._read:
            self._read[name] = self._cataloged(name)
        return self._read[name]

    def owner(self, team: str) -> Owner | None:
        """Return an owner by the name of the team; None if the catalog does not have it."""
        return Owner(team=team, **self._owners[team]) if team in self._owners else None

    def _cataloged(self, name: str) -> Cataloged | None:
        if name not in self._models:
            return None
        record = self._record
        one = record.models[name] if record is not None else json.loads(self._lines[self._models[name]])
        try:
            return cataloged(one)
        except ModelError:
            # Right when it was kept, and wrong now, by the setting `strict`: what is promised is left out.
            values = {key: value for key, value in one["values"].items() if key != "sla"}
            return cataloged({**one, "values": values})


@guarded(cast("Cataloged | None", None))
def named(name: str, settings: Settings) -> Cataloged | None:
    """Return a model of this host's catalog; None if it has none of that name, or cannot be asked."""
    paths = paths_of(settings)
    return Lookup(paths, settings.state_path).named(name) if paths else None
