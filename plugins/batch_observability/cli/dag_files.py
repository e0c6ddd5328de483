"""
Which tasks DAG files have, by reading them: nothing of theirs is run, and no Airflow is needed.

Ids that are written out are found, those that are computed when the file runs are not; it is said where these are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from batch_observability.config import ConfigError

_SKIPPED = frozenset({"__pycache__", ".git", ".venv", "node_modules"})
# What a function that `@task` decorates is called by, besides its name.
_CALLED_BY = frozenset({"override", "partial", "expand", "expand_kwargs"})
_MAX_DEPTH = 20


@dataclass(frozen=True)
class FoundTask:
    """
    A task of a DAG file.

    Attributes:
        task_id: with its task groups; "" if it, or the DAG's id, is computed.
        owner: that Airflow knows of, "" if none is written.
    """

    file: str
    line: int
    dag_id: str
    task_id: str
    owner: str = ""


@dataclass(frozen=True)
class _Place:
    """Where a statement is: in which DAG, whose id may be computed (""), and in which task groups."""

    dag_id: str | None = None
    owner: str = ""
    group: str = ""
    depth: int = 0


def tasks_of(folder: Path) -> list[FoundTask]:
    """
    Return the tasks of all DAG files of a folder, or of one file, in the order in which they are written.

    Raises:
        ConfigError: if there is no such folder or file.
    """
    if not folder.exists():
        raise ConfigError(f"--dags {folder} is not there: name the folder of the DAG files")
    found: list[FoundTask] = []
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
        if not _SKIPPED.intersection(path.relative_to(folder).parts):
            found += _of_file(path)
    return found


def _of_file(path: Path) -> list[FoundTask]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        # Airflow tells what is wrong with it.
        return []
    reader = _Reader(path)
    reader.statements(tree.body, _Place())
    only = next(iter(reader.dags)) if len(reader.dags) == 1 else None
    placed = [one if one.dag_id is not None else replace(one, dag_id=only) for one in reader.found]
    return [
        FoundTask(str(path), one.line, one.dag_id or "", one.task_id if one.dag_id else "", one.owner)
        for one in placed
        if one.dag_id is not None
    ]


@dataclass(frozen=True)
class _Found:
    line: int
    dag_id: str | None
    task_id: str
    owner: str


@dataclass
class _Reader:
    """Reads the statements of a file as far as DAGs and tasks go."""

    path: Path
    found: list[_Found] = field(default_factory=list)
    dags: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._dag_of: dict[str, _Place] = {}
        self._functions: dict[str, tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        self._ids: dict[str | None, set[str]] = {}

    def statements(self, body: Iterable[ast.stmt], place: _Place) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._function(node, place)
            elif isinstance(node, ast.With | ast.AsyncWith):
                self._with(node, place)
            elif isinstance(node, ast.ClassDef):
                continue
            else:
                self._remember(node)
                for call in _calls(node):
                    self._call(call, place)
                for block in ("body", "orelse", "finalbody"):
                    self.statements(getattr(node, block, ()), place)
                for handler in getattr(node, "handlers", ()):
                    self.statements(handler.body, place)

    def _remember(self, node: ast.stmt) -> None:
        """Note texts and DAGs that have a name."""
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name):
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                self._texts[target.id] = node.value.value
            elif isinstance(node.value, ast.Call) and _name(node.value.func) == "DAG":
                self._dag_of[target.id] = self._dag(node.value, 0)

    def _with(self, node: ast.With | ast.AsyncWith, place: _Place) -> None:
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Name) and call.id in self._dag_of:
                place = self._dag_of[call.id]
            elif isinstance(call, ast.Call) and _name(call.func) == "DAG":
                place = self._dag(call, place.depth)
                if isinstance(item.optional_vars, ast.Name):
                    self._dag_of[item.optional_vars.id] = place
            elif isinstance(call, ast.Call) and _name(call.func) == "TaskGroup":
                place = self._grouped(call, place, None)
            else:
                for one in _calls_of(call):
                    self._call(one, place)
        self.statements(node.body, place)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, place: _Place) -> None:
        kinds = {_kind(one): one for one in node.decorator_list}
        if "dag" in kinds:
            call = kinds["dag"]
            made = self._dag(call, place.depth, node.name) if isinstance(call, ast.Call) else self._named(node.name)
            self.statements(node.body, made)
        elif "asset" in kinds:
            # Airflow makes a DAG of it, with one task.
            self._named(node.name)
            self.found.append(_Found(node.lineno, node.name, node.name, ""))
        elif kind := next((kind for kind in ("task", "task_group") if kind in kinds), None):
            self._functions[node.name] = (kind, node)
        else:
            self.statements(node.body, place)

    def _dag(self, call: ast.Call, depth: int, name: str | None = None) -> _Place:
        written = _argument(call, "dag_id", 0)
        dag_id = name if written is None else self._text(written)
        return replace(self._named(dag_id or ""), owner=self._owner(call), depth=depth)

    def _named(self, dag_id: str) -> _Place:
        self.dags[dag_id] = None
        return _Place(dag_id)

    def _owner(self, call: ast.Call) -> str:
        defaults = _argument(call, "default_args", None)
        if isinstance(defaults, ast.Dict):
            for key, value in zip(defaults.keys, defaults.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "owner":
                    return self._text(value) or ""
        return ""

    def _call(self, call: ast.Call, place: _Place) -> None:
        base, id_of, is_last = _called(call)
        kind, function = self._functions.get(base, ("", None))
        if function is not None:
            if not is_last or place.depth > _MAX_DEPTH:
                return
            decorator = next(one for one in function.decorator_list if _kind(one) == kind)
            if kind == "task_group":
                self.statements(function.body, self._grouped(decorator, place, function.name, id_of))
            else:
                written = id_of or (_argument(decorator, "task_id", None) if isinstance(decorator, ast.Call) else None)
                self._task(call, function.name if written is None else self._text(written), place)
            return
        task_id = _argument(call, "task_id", None)
        if task_id is not None and _name(call.func) != "override":
            of = _argument(call, "dag", None)
            if isinstance(of, ast.Name) and of.id in self._dag_of:
                place = replace(place, dag_id=self._dag_of[of.id].dag_id, owner=self._dag_of[of.id].owner)
            self._task(call, self._text(task_id), place)

    def _task(self, call: ast.Call, task_id: str | None, place: _Place) -> None:
        text = self._once(f"{place.group}{task_id}", place) if task_id else ""
        self.found.append(_Found(call.lineno, place.dag_id, text, place.owner))

    def _once(self, text: str, place: _Place) -> str:
        """Return an id of a task or a group as Airflow makes it, with a number if it is taken."""
        ids = self._ids.setdefault(place.dag_id, set())
        numbered = (f"{text}__{number}" for number in range(1, len(ids) + 2))
        free = text if text not in ids else next(one for one in numbered if one not in ids)
        ids.add(free)
        return free

    def _grouped(self, call: ast.expr, place: _Place, name: str | None, id_of: ast.expr | None = None) -> _Place:
        """Return the place within a task group."""
        prefixed, written = True, id_of
        if isinstance(call, ast.Call):
            prefix = _argument(call, "prefix_group_id", None)
            prefixed = not (isinstance(prefix, ast.Constant) and prefix.value is False)
            written = id_of or _argument(call, "group_id", 0)
        text = name if written is None else self._text(written)
        group = f"{self._once(f'{place.group}{text}', place)}." if prefixed and text else place.group
        return replace(place, group=group, depth=place.depth + 1)

    def _text(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        return self._texts.get(node.id) if isinstance(node, ast.Name) else None


def _calls(node: ast.stmt) -> Iterator[ast.Call]:
    """Yield the calls of a statement in the order in which they are made; those of its blocks are not its own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _calls_of(child)


def _calls_of(node: ast.AST) -> Iterator[ast.Call]:
    if isinstance(node, ast.Lambda):
        return
    for child in ast.iter_child_nodes(node):
        yield from _calls_of(child)
    if isinstance(node, ast.Call):
        yield node


def _called(call: ast.Call) -> tuple[str, ast.expr | None, bool]:
    """Return which function a chain of calls is of, the id that it is given, and whether it makes the task."""
    id_of, is_last, node = None, _name(call.func) not in ("override", "partial"), call.func
    while True:
        if isinstance(node, ast.Call):
            if _name(node.func) == "override":
                id_of = id_of or _argument(node, "task_id", None) or _argument(node, "group_id", None)
            node = node.func
        elif isinstance(node, ast.Attribute) and node.attr in _CALLED_BY:
            node = node.value
        else:
            return (node.id if isinstance(node, ast.Name) else ""), id_of, is_last


def _argument(call: ast.expr, name: str, position: int | None) -> ast.expr | None:
    if not isinstance(call, ast.Call):
        return None
    found = next((one.value for one in call.keywords if one.arg == name), None)
    if found is None and position is not None and len(call.args) > position:
        found = call.args[position]
    return found


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _kind(decorator: ast.expr) -> str:
    """Return what a decorator makes: `dag`, `task`, also for `task.branch`, or `task_group`; "" if it is another."""
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    while isinstance(node, ast.Attribute) and node.attr not in (
        "dag",
        "task",
        "task_group",
        "setup",
        "teardown",
        "asset",
    ):
        node = node.value
    name = _name(node)
    # A function that sets up is a task already, or is made one.
    return {"setup": "task", "teardown": "task"}.get(name, name)
