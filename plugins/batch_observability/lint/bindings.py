"""
Which names the statements of a Python file bind, and to what: as far as that is written down.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run one after the other: those of `with` and of `try` too."""
    for node in body:
        if isinstance(node, ast.With | ast.AsyncWith):
            yield node
            yield from statements(node.body)
        elif isinstance(node, ast.Try):
            yield from statements(node.body)
            yield from (one for handler in node.handlers for one in handler.body)
        else:
            yield node


def bound(node: ast.stmt) -> list[tuple[str, ast.expr | None]]:
    """Return the names that a statement binds, each with its expression; None if that is none, or one of several."""
    if isinstance(node, ast.Assign):
        named = [target.id for target in node.targets if isinstance(target, ast.Name)]
        others = [name for target in node.targets if not isinstance(target, ast.Name) for name in _stored(target)]
        return [*((name, node.value) for name in named), *((name, None) for name in others)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        return [(node.target.id, node.value)]
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return [(node.target.id, None)]
    if isinstance(node, ast.With | ast.AsyncWith):
        return [(name, None) for item in node.items if item.optional_vars for name in _stored(item.optional_vars)]
    if isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While | ast.Match):
        # Within a loop or a condition a name has no one value.
        return [(name, None) for name in _stored(node)]
    return []


def _stored(node: ast.AST) -> list[str]:
    return [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
