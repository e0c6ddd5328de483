"""
A DAG file, or a script, read without running it: its batch models, its tasks, and what its runs record.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from batch_observability import schema
from batch_observability.lint.declared import Declaration, Key, declaration, key_of
from batch_observability.lint.reading import PACKAGE, UNKNOWN, Source

MEASURE, STAGE = "measure", "stage"
# Of DogStatsD's clients: `tags` is their argument of that name.
_SENDERS = ("increment", "decrement", "count", "gauge", "histogram", "distribution", "timing", "set")
_PREFIX = schema.RUN_STARTED.name.partition(".")[0] + "."
_EXTRA_TAGS = {metric.extra_tag for metric in schema.METRICS.values()} - {""}


@dataclass(frozen=True)
class Recorded:
    """A stage or a measurement of a run: `name` is None if it is computed, `text` is how it is written."""

    kind: str
    name: str | None
    text: str
    line: int


@dataclass(frozen=True)
class Sent:
    """A metric of ours that code sends itself, with a tag that is none of ours."""

    metric: str
    tag: str
    line: int


@dataclass
class DagFile:
    """
    What a file says.

    Attributes:
        declarations: models, in the order of their lines.
        tasks: DAG id and task id of what is a task, a DAG id is "" where it is not known.
        tasks_of: the tasks of a model, by the key of its declaration.
        recorded: stages and measurements.
        sent: metrics of ours with tags of their own.
    """

    path: str
    declarations: list[Declaration] = field(default_factory=list)
    dag_ids: list[str] = field(default_factory=list)
    tasks: list[tuple[str, str]] = field(default_factory=list)
    tasks_of: dict[Key, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    recorded: list[Recorded] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)


def read(source: Source) -> DagFile:
    """Return what a file says."""
    found = DagFile(str(source.path))
    uses_us = any(origin.partition(".")[0] == PACKAGE for origin in source.imports.values())
    _Visitor(found, source, uses_us=uses_us).visit(source.tree)
    only = found.dag_ids[0] if len(found.dag_ids) == 1 else ""
    found.tasks = [(dag_id or only, task_id) for dag_id, task_id in found.tasks]
    for key, tasks in found.tasks_of.items():
        found.tasks_of[key] = list(dict.fromkeys((dag_id or only, task_id) for dag_id, task_id in tasks))
    found.declarations.sort(key=lambda one: one.key)
    return found


class _Visitor(ast.NodeVisitor):
    """Walks a file, and knows in which function and in which DAG it is."""

    def __init__(self, found: DagFile, source: Source, *, uses_us: bool) -> None:
        self._found = found
        self._source = source
        self._uses_us = uses_us
        self._dag_id = ""
        # Names that a loop over what is written out gives values to, and classes that are operators of a model.
        self._bounded: dict[str, tuple[str, ...]] = {}
        self._classes: dict[str, Key | None] = {}

    # --- Where things stand --------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """A function: a DAG, a task, or another."""
        for decorator in node.decorator_list:
            self.visit(decorator)
        outer, dag_id = self._source, self._dag_id
        if made := self._decorated(node, ("dag",)):
            self._dag_id = self._named(made, "dag_id") or node.name
            self._found.dag_ids.append(self._dag_id)
        self._add_decorated_task(node)
        self._source = outer.within(node)
        for statement in (*node.args.defaults, *node.body):
            self.visit(statement)
        self._source, self._dag_id = outer, dag_id

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  (the visitor's names)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class: with the mixin its operators are tasks of the model that stands in it."""
        if any(self._is_mixin(base) for base in node.bases):
            models = [
                one.value for one in node.body if isinstance(one, ast.Assign | ast.AnnAssign) and _names_model(one)
            ]
            keys = [key_of(self._source, model) for model in models if model is not None]
            inherited = [self._classes.get(base.id) for base in node.bases if isinstance(base, ast.Name)]
            self._classes[node.name] = next((key for key in [*keys, *inherited] if key), None)
        self.generic_visit(node)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        """A block: within that of a DAG, tasks are of it."""
        dag_id = self._dag_id
        for item in node.items:
            if isinstance(item.context_expr, ast.Call) and self._last(item.context_expr.func) == "DAG":
                self._dag_id = self._named(item.context_expr, "dag_id")
        self.generic_visit(node)
        self._dag_id = dag_id

    visit_AsyncWith = visit_With  # noqa: N815  (the visitor's names)

    def visit_For(self, node: ast.For) -> None:
        """A loop: over texts that are written out it is bounded."""
        values = self._source.value(node.iter)
        before = dict(self._bounded)
        if isinstance(node.target, ast.Name) and isinstance(values, tuple) and all(isinstance(v, str) for v in values):
            self._bounded[node.target.id] = values
        self.generic_visit(node)
        self._bounded = before

    # --- What is called ------------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        """A call: it declares a model, makes a DAG or a task, or records something."""
        one = declaration(self._source, node)
        if one is not None:
            self._found.declarations.append(one)
        if self._last(node.func) == "DAG":
            self._found.dag_ids.append(self._named(node, "dag_id"))
        self._add_task(node)
        if self._uses_us and isinstance(node.func, ast.Attribute):
            self._add_recorded(node, node.func.attr)
            self._add_sent(node, node.func.attr)
        self.generic_visit(node)

    def _add_task(self, node: ast.Call) -> None:
        task_id = self._named(node, "task_id", positional=False)
        if not task_id:
            return
        task = (self._dag_of(node), task_id)
        self._found.tasks.append(task)
        given = {one.arg: one.value for one in node.keywords}
        models = [given[name] for name in ("model", "python_callable") if name in given]
        # task.batch_model(function, model=...) and task(batch_model(function, MODEL), ...).
        models += node.args[:1]
        for model in models:
            if key := self._key(model):
                self._found.tasks_of[key].append(task)
                return
        class_ = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr == "partial" else node.func
        if isinstance(class_, ast.Name) and (key := self._classes.get(class_.id)):
            self._found.tasks_of[key].append(task)

    def _add_decorated_task(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorator = self._decorated(
            node, ("task", "python", "virtualenv", "external_python", "sensor", "batch_model"), "task"
        )
        if decorator is None:
            return
        task = (self._dag_id, self._named(decorator, "task_id", positional=False) or node.name)
        self._found.tasks.append(task)
        for one in node.decorator_list:
            given = (
                [*one.args[:1], *(k.value for k in one.keywords if k.arg == "model")]
                if isinstance(one, ast.Call)
                else []
            )
            for key in filter(None, [self._key(one), *map(self._key, given)]):
                self._found.tasks_of[key].append(task)

    def _key(self, node: ast.AST) -> Key | None:
        """Return the declaration that an expression is, or that it is given to."""
        if key := key_of(self._source, node):
            return key
        of, call = self._source.expression(node)
        if isinstance(call, ast.Call) and of.is_ours(call.func, "batch_model"):
            return next(filter(None, (key_of(of, one) for one in call.args)), None)
        return None

    def _dag_of(self, node: ast.Call) -> str:
        given = next((one.value for one in node.keywords if one.arg == "dag"), None)
        if given is None:
            return self._dag_id
        of, call = self._source.expression(given)
        return self._named(call, "dag_id", of)

    def _add_recorded(self, node: ast.Call, method: str) -> None:
        positions = {MEASURE: 2, STAGE: 1}
        named = next((one.value for one in node.keywords if one.arg == "name"), None)
        if method not in positions or (named is None and len(node.args) < positions[method]):
            return
        name = node.args[0] if named is None else named
        for text in self._texts(name):
            self._found.recorded.append(Recorded(method, text, ast.unparse(name), node.lineno))

    def _texts(self, node: ast.expr) -> tuple[str | None, ...]:
        if isinstance(node, ast.Name) and node.id in self._bounded:
            return self._bounded[node.id]
        value = self._source.value(node)
        return (value if isinstance(value, str) else None,)

    def _add_sent(self, node: ast.Call, method: str) -> None:
        if method not in _SENDERS or not node.args:
            return
        metric = self._source.value(node.args[0])
        if not isinstance(metric, str) or not metric.startswith(_PREFIX):
            return
        given = next((one.value for one in node.keywords if one.arg == "tags"), None)
        for tag in self._tags(given):
            if tag not in schema.TAGS and tag not in _EXTRA_TAGS:
                self._found.sent.append(Sent(metric, tag, node.lineno))

    def _tags(self, node: ast.expr | None) -> Iterator[str]:
        if not isinstance(node, ast.List | ast.Tuple):
            return
        for one in node.elts:
            # Of f"run:{run_id}" the name is known.
            first = one.values[0] if isinstance(one, ast.JoinedStr) and one.values else one
            value = self._source.value(first)
            if isinstance(value, str):
                yield value.partition(":")[0]

    # --- What things are called ----------------------------------------------------------------------------------

    def _decorated(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, names: tuple[str, ...], of: str = ""
    ) -> ast.expr | None:
        """Return the decorator with one of these names, of what is called `of` if it is an attribute."""
        for one in node.decorator_list:
            function = one.func if isinstance(one, ast.Call) else one
            parts = self._source.origin(function).split(".")
            if parts[-1] not in names or parts[0] == PACKAGE:
                continue
            if not of or parts[-1] == of or parts[-2:-1] == [of]:
                return one
        return None

    def _is_mixin(self, base: ast.expr) -> bool:
        return self._source.is_ours(base, "BatchModelMixin") or (
            isinstance(base, ast.Name) and base.id in self._classes
        )

    def _last(self, node: ast.AST) -> str:
        return self._source.origin(node).rpartition(".")[2]

    def _named(self, node: ast.AST, name: str, source: Source | None = None, *, positional: bool = True) -> str:
        """Return a text that is given to a call, by name or first; "" if it is none, or computed."""
        if not isinstance(node, ast.Call):
            return ""
        given = next((one.value for one in node.keywords if one.arg == name), None)
        if given is None and positional and node.args:
            given = node.args[0]
        value = (source or self._source).value(given) if given is not None else UNKNOWN
        return value if isinstance(value, str) else ""


def _names_model(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(one, ast.Name) and one.id == "model" for one in targets)
