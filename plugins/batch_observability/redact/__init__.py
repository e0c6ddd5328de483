"""
Secrets masked in what is about to leave: passwords in URLs, values behind keys that look like secrets, and what
environment variables with such names hold.

Airflow's own masker knows its connections and variables only, and a cron job has none; this needs nothing set up.
"""

from __future__ import annotations

from typing import Any

from batch_observability.redact.keys import MAX_KEY, looks_secret
from batch_observability.redact.texts import MASK, forget_environment, hinted, redact_text

__all__ = ["MASK", "forget_environment", "hinted", "looks_secret", "redact", "redact_text"]

_MAX_DEPTH = 10
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "cookies"})


def redact(value: Any) -> Any:
    """
    Return a value with its secrets masked, made of new dicts, lists and tuples.

    What is under a key that looks like a secret is masked whole, and so is what is nested too deeply or holds itself.
    Numbers, booleans and None stay; anything else becomes its redacted text. Never raises.
    """
    return _redacted(value, _MAX_DEPTH, {})


def _redacted(value: Any, depth: int, seen: dict[int, tuple[Any, Any]]) -> Any:
    if value is None or type(value) in {bool, int, float}:
        return value
    try:
        if isinstance(value, dict | list | tuple):
            # What is there many times is looked at once; while it is, it is the mask. It is kept, and its id with it.
            if id(value) not in seen:
                seen[id(value)] = (value, MASK)
                seen[id(value)] = (value, _container_redacted(value, depth, seen) if depth else MASK)
            return seen[id(value)][1]
        return redact_text(str(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _container_redacted(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int, seen: dict[int, tuple[Any, Any]]
) -> Any:
    if isinstance(value, dict):
        # As Kubernetes has it: name: DB_PASSWORD, value: x
        named = any(_is_secret_key(value.get(name)) for name in ("name", "key"))
        return {
            _redacted_key(key): MASK
            if _is_masked(key, inner) or (named and key == "value" and isinstance(inner, str))
            else _redacted(inner, depth - 1, seen)
            for key, inner in list(value.items())
        }
    items = [_redacted(inner, depth - 1, seen) for inner in list(value)]
    if len(value) == 2 and _is_masked(*value):
        # One of the pairs that a dict may be written as.
        items[1] = MASK
    return items if isinstance(value, list) else tuple(items)


def _redacted_key(key: Any) -> Any:
    return key if key is None or type(key) in {bool, int, float} else _redacted(str(key), 0, {})


def _is_masked(key: Any, value: Any) -> bool:
    """Whether a value is masked for its key. `True` and None are no secrets, and `secrets: 3` is their number."""
    if value is None or value is True or value is False:
        return False
    if not _is_secret_key(key):
        return False
    return type(value) not in {int, float} or not key.lower().endswith("s")


def _is_secret_key(key: Any) -> bool:
    return isinstance(key, str) and (
        looks_secret(key[-MAX_KEY:]) or key.lower().removeprefix("http_").replace("_", "-") in _HEADERS
    )
