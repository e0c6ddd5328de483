"""
Batch models as DAG files and scripts declare them: which fields, with which values, in which lines.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from batch_observability.lint.reading import UNKNOWN, Source
from batch_observability.model import BatchModel
from batch_observability.objective import PARSERS, ModelError

FIELDS = tuple(f.name for f in fields(BatchModel))
SLA_KEY = "sla."
# What has another value at each parse, or on each host.
_VOLATILE = (
    *("today", "now", "utcnow", "time", "time_ns", "monotonic", "uuid1", "uuid4", "uuid7", "token_hex", "urandom"),
    *("gethostname", "getfqdn", "node", "getpid", "random", "randint", "choice", "strftime", "mkdtemp", "check_output"),
)
# What names a run, in a template or an f-string.
_OF_RUN = ("run_id", "ds", "ds_nodash", "ts", "ts_nodash", "logical_date", "execution_date", "data_interval_start")

# File, line and column of a call: who it is.
Key = tuple[str, int, int]


@dataclass(frozen=True)
class Written:
    """A field as it is written: its value, `UNKNOWN` if it is computed, its line, and what varies in it."""

    value: Any
    line: int
    volatile: str = ""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """
    A batch model as it is written at one place.

    Attributes:
        key: of its call.
        form: what is called: `BatchModel`, `batch_model` or `observe`.
        file, line: where.
        written: fields, those of the SLA as `sla.finish_by`; also those that there are not.
        open: further fields are computed.
        label: what it is called where its name is computed.
    """

    key: Key
    form: str
    file: str
    line: int
    written: Mapping[str, Written] = field(default_factory=dict)
    open: bool = False
    label: str = ""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yield key and text of each field that there is not, or whose value cannot be."""
        name = self.written.get("name")
        whose = f"model {self.name!r}"
        if name is None and not self.open:
            yield "name", f"{self.form}() has no name: write name='churn-score'"
        for key, one in self.written.items():
            of_sla = key.startswith(SLA_KEY)
            known = tuple(PARSERS) if of_sla else FIELDS
            bare = key.removeprefix(SLA_KEY)
            if bare not in known:
                close = get_close_matches(bare, known, n=1)
                remedy = f"write {close[0]}" if close else f"write one of {', '.join(known)}"
                yield key, f"{'SLA of ' if of_sla else ''}{whose} has {bare!r}: {remedy}"
            elif one.value is not UNKNOWN and (problem := _problem(key, one.value)):
                what = f"SLA {bare!r} of {whose} is {one.value!r}: {problem}" if of_sla else problem
                yield key, what

    @property
    def name(self) -> str:
        """Its name, or what stands for one."""
        one = self.written.get("name")
        usable = one is not None and isinstance(one.value, str) and not _problem("name", one.value)
        return str(one.value) if one is not None and usable else self.label or "computed"

    def model(self) -> BatchModel:
        """Return the model, as far as it is known and right."""
        values: dict[str, Any] = {}
        sla: dict[str, Any] = {}
        for key, one in self.written.items():
            if one.value is UNKNOWN or key.removeprefix(SLA_KEY) not in (*FIELDS, *PARSERS) or _problem(key, one.value):
                continue
            if key.startswith(SLA_KEY):
                sla[key.removeprefix(SLA_KEY)] = one.value
            elif key != "sla":
                values[key] = one.value
        if "sla" in self.written:
            values["sla"] = sla or None
        return BatchModel(**{**values, "name": self.name})


def _problem(key: str, value: Any) -> str:
    """Say what is wrong with the value of a field, "" if nothing is."""
    try:
        if key.startswith(SLA_KEY):
            if value is not None:
                PARSERS[key.removeprefix(SLA_KEY)](value)
        elif key == "name":
            BatchModel(name=value)
        elif key in FIELDS and key != "sla":
            BatchModel(**{"name": "model", key: value})
    except ModelError as error:
        return str(error)
    return ""


def declaration(source: Source, call: ast.Call) -> Declaration | None:
    """Return the model that a call declares, None if it declares none."""
    if source.is_ours(call.func, "BatchModel"):
        return _declared(source, call, "BatchModel", FIELDS)
    if source.is_ours(call.func, "batch_model") and any(one.arg in FIELDS for one in call.keywords):
        return _declared(source, call, "batch_model", ())
    if source.is_ours(call.func, "observe") and call.args and not _is_model(source, call.args[0]):
        return _declared(source, call, "observe", FIELDS[:1])
    if source.origin(call.func) in ("dataclasses.replace", "copy.replace") and call.args:
        of, first = source.expression(call.args[0])
        before = declaration(of, first) if isinstance(first, ast.Call) else None
        if before is not None:
            again = _declared(source, call, "BatchModel", ())
            written = {**before.written, **again.written}
            return Declaration(**{**vars(again), "written": written, "open": before.open or again.open})
    return None


def key_of(source: Source, node: ast.AST) -> Key | None:
    """Return the call that declares the model which an expression is, None if there is none."""
    of, call = source.expression(node)
    if isinstance(call, ast.Call) and declaration(of, call) is not None:
        return str(of.path), call.lineno, call.col_offset
    return None


def _is_model(source: Source, node: ast.AST) -> bool:
    return isinstance(source.expression(node)[1], ast.Call) or source.value(node) is UNKNOWN


def _declared(source: Source, call: ast.Call, form: str, positional: tuple[str, ...]) -> Declaration:
    given, is_open = arguments(source, call, positional)
    written: dict[str, Written] = {}
    label = ""
    for name, (of, node, line) in given.items():
        if name == "sla":
            of_sla, sla_open = _sla(of, node, line)
            written |= of_sla
            written["sla"] = Written(UNKNOWN if sla_open else True, line)
            continue
        value = of.value(node)
        if name == "name" and value is UNKNOWN:
            label = _label(of, node)
        written[name] = Written(value, line, volatile(of, node))
    return Declaration(
        key=(str(source.path), call.lineno, call.col_offset),
        form=form,
        file=str(source.path),
        line=call.lineno,
        written=written,
        open=is_open,
        label=label,
    )


def arguments(
    source: Source, call: ast.Call, positional: tuple[str, ...]
) -> tuple[dict[str, tuple[Source, ast.expr, int]], bool]:
    """Return the arguments of a call by name, with their lines, and whether further ones are computed."""
    found: dict[str, tuple[Source, ast.expr, int]] = {}
    is_open = len(call.args) > len(positional) and bool(positional)
    for name, node in zip(positional, call.args, strict=False):
        if isinstance(node, ast.Starred):
            is_open = True
            break
        found[name] = (source, node, node.lineno)
    for keyword in call.keywords:
        if keyword.arg is not None:
            found[keyword.arg] = (source, keyword.value, keyword.value.lineno)
            continue
        of, unpacked = source.expression(keyword.value)
        pairs = _pairs(of, unpacked)
        if pairs is None:
            is_open = True
        else:
            found |= {name: (of, value, keyword.value.lineno) for name, value in pairs.items()}
    return found, is_open


def _pairs(source: Source, node: ast.AST) -> dict[str, ast.expr] | None:
    """Return what a dictionary that is written out holds; None if it is computed."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {one.arg: one.value for one in node.keywords if one.arg is not None}
    if not isinstance(node, ast.Dict):
        return None
    found: dict[str, ast.expr] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        inner = None
        if key is None:
            inner = _pairs(*source.expression(value))
        elif isinstance(name := source.value(key), str):
            inner = {name: value}
        if inner is None:
            return None
        found |= inner
    return found


def _sla(source: Source, node: ast.AST, line: int) -> tuple[dict[str, Written], bool]:
    """Return the promises of an SLA as they are written, and whether it is computed, or in part."""
    elsewhere = not isinstance(node, ast.Call | ast.Dict)
    of, node = source.expression(node)
    if isinstance(node, ast.Constant) and node.value is None:
        return {}, False
    if isinstance(node, ast.Call) and of.is_ours(node.func, "SLA"):
        given, is_open = arguments(of, node, ())
    else:
        pairs = _pairs(of, node)
        if pairs is None:
            return {}, True
        given, is_open = {name: (of, value, value.lineno) for name, value in pairs.items()}, False
    # What is written elsewhere is told where the model is that has it.
    return {
        f"{SLA_KEY}{name}": Written(inner.value(value), line if elsewhere else at)
        for name, (inner, value, at) in given.items()
    }, is_open


def _label(source: Source, node: ast.AST) -> str:
    """Return a name that stands for one that is computed: what is known of it."""
    parts = node.values if isinstance(node, ast.JoinedStr) else []
    values = [source.value(part) for part in parts]
    text = "".join("..." if value is UNKNOWN else str(value) for value in values).lstrip("._-/")
    return text if text.strip(".") and not _problem("name", text) else ""


def volatile(source: Source, node: ast.AST) -> str:
    """Return what in an expression is another at each parse, each run or on each host; "" if nothing is known to be."""
    of, node = source.expression(node)
    for one in ast.walk(node):
        if isinstance(one, ast.Call):
            name = of.origin(one.func).rpartition(".")[2] or (
                one.func.attr if isinstance(one.func, ast.Attribute) else ""
            )
            if name in _VOLATILE:
                return f"{name}()"
        elif isinstance(one, ast.Name | ast.Attribute):
            name = one.id if isinstance(one, ast.Name) else one.attr
            if name in _OF_RUN:
                return name
    return ""
