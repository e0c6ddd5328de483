"""
Python files read without running them: which value an expression has, as far as that is written down.

Constants of a module, and those that it imports from other files of the folder, are followed; what is computed is not
known, and nothing is said of it. Code of users is never imported.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from batch_observability.lint.bindings import bound, statements

PACKAGE = "batch_observability"
# A chain of names that name each other is longer than anybody writes, or has no end.
_DEPTH = 20


class _Unknown:
    """What an expression is that is computed."""


UNKNOWN: Final = _Unknown()


class UnreadableError(ValueError):
    """A file is not Python, or cannot be read. The message is one line for the user; `line` is 0 if there is none."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


class Folder:
    """
    Python files that may import each other.

    Args:
        roots: folders that imports are looked for in, as Airflow puts its DAGs folder on `sys.path`.
    """

    def __init__(self, roots: tuple[Path, ...] = ()) -> None:
        self._roots = roots
        self._read: dict[Path, Source | UnreadableError] = {}
        self._imported: dict[tuple[str, Path], Source | None] = {}

    def source(self, path: Path) -> Source:
        """
        Return a file as it was read.

        Raises:
            UnreadableError: naming what is wrong.
        """
        if path not in self._read:
            try:
                self._read[path] = Source(path, _parsed(path), self)
            except UnreadableError as error:
                self._read[path] = error
        found = self._read[path]
        if isinstance(found, UnreadableError):
            raise found
        return found

    def imported(self, module: str, by: Path) -> Source | None:
        """Return the file of a module that a file imports, None if it is not among them or cannot be read."""
        # Asked for at each name in a file.
        if (module, by) not in self._imported:
            self._imported[module, by] = self._find(module, by)
        return self._imported[module, by]

    def _find(self, module: str, by: Path) -> Source | None:
        relative = len(module) - len(module.lstrip("."))
        names = module.lstrip(".").split(".") if module.lstrip(".") else []
        roots = [by.parents[relative - 1]] if 0 < relative <= len(by.parents) else [*self._roots, by.parent]
        for root in roots:
            for path in (
                root.joinpath(*names).with_suffix(".py") if names else None,
                root.joinpath(*names, "__init__.py"),
            ):
                if path is not None and path.is_file():
                    try:
                        return self.source(path)
                    except (UnreadableError, RecursionError):
                        return None
        return None


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise UnreadableError(f"it is no Python: {error.msg}", error.lineno or 1) from None
    except ValueError as error:
        raise UnreadableError(f"it is no Python: {' '.join(str(error).split())}", 1) from None


class Source:
    """
    A Python file, or a function in it: its tree, its constants and what it imports.

    Args:
        path: of the file.
        tree: all of it, or the function.
        folder: where its imports are looked for.
        outer: what a function stands in.
    """

    def __init__(
        self,
        path: Path,
        tree: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef,
        folder: Folder,
        outer: Source | None = None,
    ) -> None:
        self.path = path
        self.tree = tree
        self._folder = folder
        self._outer = outer

    def within(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Source:
        """Return what the names within a function of this file mean."""
        return Source(self.path, function, self._folder, self)

    @cached_property
    def names(self) -> Mapping[str, ast.expr | None]:
        """What names are bound to; None if to several things, or to what no expression says."""
        found: dict[str, ast.expr | None] = {}
        for node in statements(self.tree.body):
            for name, value in bound(node):
                found[name] = None if name in found else value
        # What is imported, or else something, is not known to be either.
        found |= dict.fromkeys(name for name in found if name in self.imports)
        if isinstance(self.tree, ast.Module):
            return found
        given = self.tree.args
        arguments = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
        parameters = {one.arg: None for one in arguments if one is not None}
        return {**(self._outer.names if self._outer else {}), **parameters, **found}

    @cached_property
    def imports(self) -> Mapping[str, str]:
        """Dotted origin of each name that is imported anywhere in the file, relative ones with their dots."""
        if self._outer is not None:
            return self._outer.imports
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    found[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                dot = "" if module.endswith(".") else "."
                found |= {alias.asname or alias.name: f"{module}{dot}{alias.name}" for alias in node.names}
        return found

    def origin(self, node: ast.AST, depth: int = 0) -> str:
        """Return the dotted name of what an expression names, as it was imported first; "" if it names nothing."""
        if isinstance(node, ast.Attribute):
            before = self.origin(node.value, depth)
            return f"{before}.{node.attr}" if before else ""
        if not isinstance(node, ast.Name) or depth > _DEPTH:
            return ""
        if node.id not in self.imports:
            # A name of its own: an alias of what was imported, or its own.
            value = self.names.get(node.id)
            return self.origin(value, depth + 1) if isinstance(value, ast.Name | ast.Attribute) else node.id
        dotted = self.imports[node.id]
        module, _, name = dotted.rpartition(".")
        if dotted.partition(".")[0] != PACKAGE and (other := self._module(module)) and name in other.imports:
            return other.origin(ast.Name(name, ast.Load()), depth + 1)
        return dotted

    def is_ours(self, node: ast.AST, name: str) -> bool:
        """Whether an expression names something of this package."""
        origin = self.origin(node)
        return origin.partition(".")[0] == PACKAGE and origin.rpartition(".")[2] == name

    def expression(self, node: ast.AST, depth: int = 0) -> tuple[Source, ast.AST]:
        """Follow names to the expression that they are bound to, and the file that it is in."""
        if depth > _DEPTH:
            return self, node
        if isinstance(node, ast.Name):
            value = self.names.get(node.id)
            if value is not None:
                return self.expression(value, depth + 1)
            if node.id in self.imports and node.id not in self.names:
                module, _, name = self.imports[node.id].rpartition(".")
                return self._in_module(module, name, node, depth)
        if isinstance(node, ast.Attribute) and (module := self.origin(node.value)):
            return self._in_module(module, node.attr, node, depth)
        return self, node

    def _in_module(self, module: str, name: str, node: ast.AST, depth: int) -> tuple[Source, ast.AST]:
        other = self._module(module)
        if other is None or (name not in other.names and name not in other.imports):
            return self, node
        found, expression = other.expression(ast.Name(name, ast.Load()), depth + 1)
        # A name that stays a name is bound to nothing that is known.
        return (self, node) if isinstance(expression, ast.Name) else (found, expression)

    def _module(self, module: str) -> Source | None:
        return self._folder.imported(module, self.path) if module else None

    def value(self, node: ast.AST, depth: int = 0) -> Any:
        """Return the value of an expression, `UNKNOWN` if it is computed."""
        if depth > _DEPTH:
            return UNKNOWN
        source, node = self.expression(node)

        def inner(part: ast.AST) -> Any:
            return source.value(part, depth + 1)

        match node:
            case ast.Constant(value=value):
                return value
            case ast.JoinedStr(values=parts):
                return _joined([inner(part) for part in parts])
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                found = inner(value)
                return UNKNOWN if found is UNKNOWN else str(found)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return _all([inner(one) for one in elements], tuple)
            case ast.Dict(keys=keys, values=values):
                return _dict(
                    [(inner(key) if key else None, inner(value)) for key, value in zip(keys, values, strict=True)]
                )
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                found = inner(operand)
                return -found if isinstance(found, int | float) else UNKNOWN
            case ast.BinOp(left=left, op=ast.Add() | ast.Mult() | ast.Sub() | ast.Div() as operator, right=right):
                return _computed(inner(left), operator, inner(right))
            case ast.Call() if source.origin(node.func).endswith("timedelta"):
                return _called(timedelta, [inner(one) for one in node.args], _keywords(node, inner))
            case ast.Call(func=ast.Name(id="dict"), args=[]):
                return _dict(list(_keywords(node, inner).items()))
        return UNKNOWN


def _keywords(call: ast.Call, inner: Callable[[ast.AST], Any]) -> dict[str | None, Any]:
    return {keyword.arg: inner(keyword.value) for keyword in call.keywords}


def _joined(parts: list[Any]) -> Any:
    return UNKNOWN if UNKNOWN in parts else "".join(map(str, parts))


def _all(found: list[Any], kind: type) -> Any:
    return UNKNOWN if any(one is UNKNOWN for one in found) else kind(found)


def _dict(pairs: list[tuple[Any, Any]]) -> Any:
    """Return a dictionary whose keys are known; a value may be `UNKNOWN`, a key of None is one that is unpacked."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key is UNKNOWN or (key is None and not isinstance(value, dict)):
            return UNKNOWN
        try:
            found |= value if key is None else {key: value}
        except TypeError:
            return UNKNOWN
    return found


def _computed(left: Any, operator: ast.operator, right: Any) -> Any:
    if left is UNKNOWN or right is UNKNOWN or (isinstance(operator, ast.Mult) and not _is_small(left, right)):
        return UNKNOWN
    try:
        match operator:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Div():
                return left / right
        return left * right
    except (TypeError, ArithmeticError):
        return UNKNOWN


def _is_small(*values: Any) -> bool:
    # A text times a billion is no value that somebody meant.
    return all(isinstance(one, int | float | timedelta) for one in values)


def _called(function: Callable[..., Any], positional: list[Any], named: dict[str | None, Any]) -> Any:
    if UNKNOWN in positional or UNKNOWN in named.values() or None in named:
        return UNKNOWN
    try:
        return function(*positional, **{str(name): value for name, value in named.items()})
    except (TypeError, ValueError, OverflowError):
        return UNKNOWN
