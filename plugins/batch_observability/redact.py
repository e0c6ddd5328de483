"""
Secrets masked in what is about to leave: passwords in URLs, values behind keys that look like secrets, and what
environment variables with such names hold.

Airflow's own masker knows its connections and variables only, and a cron job has none; this needs nothing set up.
"""

from __future__ import annotations

import os
import re
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

MASK = "***"
_MIN_LITERAL = 8
_MAX_DEPTH = 10

# --- Keys -------------------------------------------------------------------------------------------------------

# A part of a key, which is joined by _ - . or camelCase, or two parts side by side.
_WORDS = frozenset({
    "password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials",
    "apikey", "apikeys", "appkey", "accesskey", "privatekey", "secretkey", "accesstoken", "authtoken", "clientsecret",
})  # fmt: skip
_PAIRS = frozenset(
    (kind, noun)
    for kind in ("api", "app", "application", "access", "account", "private", "encryption", "fernet", "signing", "ssh")
    for noun in ("key", "keys")
)
# `PGPASSWORD`; no other word ends so.
_ENDINGS = ("password", "passwd")
# What is said about a secret is none: `token_count=512`.
_ABOUT = frozenset({"count", "counts", "length", "limit", "size", "type", "ttl", "expiry"})
# One of these is in every key that looks like a secret: looked for first, because most texts have none.
_STEM = re.compile("passw|passphrase|pwd|secret|token|credential|key")
_MAX_KEY = 200
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@lru_cache(4096)
def looks_secret(key: str) -> bool:
    """Whether a key says that its value is a secret: `DD_API_KEY`, `dbPassword`; not `tokenizer`, `n_tokens`."""
    lower = key.lower()
    parts = [part.lower() for part in _PART.findall(key)]
    if not _STEM.search(lower) or not parts or parts[-1] in _ABOUT:
        return False
    words = {*parts, *re.split(r"[^a-z]+", lower)}
    return (
        not _WORDS.isdisjoint(words)
        or any(word.endswith(_ENDINGS) for word in words)
        or any(pair in _PAIRS for pair in pairwise(parts))
    )


# --- Texts ------------------------------------------------------------------------------------------------------

# A password may hold what should have been quoted: `@`, or, unless it looks like a port and a path, `/`.
_URL = re.compile(
    r"""(?<=[a-zA-Z0-9])(://[^\s/?\#:@'"\[]*:)(?:[^\s/?\#'"]+|(?!\d+[/?\#])(?:(?!://)[^\s'"]){1,300})(?=@)"""
)
_AUTHORIZATION = re.compile(
    r"""(authorization\\*["']?\s*[:=,]\s*\\*["']?(?:bearer|basic|token|digest|negotiate|apikey)[ \t]+)[^\s"'\\,;]+""",
    re.IGNORECASE,
)
# A key begins where a word does: every other place is passed by at the cost of one look back. The second is an option
# of a command, whose value is the next word.
_KEY = re.compile(
    r"""(?<![\w.-])(?:([\w.-]++)\\*["']?\]?[ \t]*+[:=](?!=)[ \t]*+|--([\w.-]++)(?:["'],)?[ \t]++(?![-:=]))"""
)
# Within quotes (escaped ones too: JSON within JSON), a list or an object, or bare: up to white space, or what may end
# a value where it is followed by white space, its like, or another key.
_VALUE = re.compile(
    r"""
    (?P<open>[bBrRuUfF]{0,2}(?P<quote>\\{0,15}["']))(?:(?!(?P=quote))(?:\\.|[^\\]|\\\Z))*+(?P<close>(?P=quote)|\Z)
    | \[[^\]]*+\]? | \{[^}]*+\}?
    | (?i:(?:bearer|basic)[ \t]++)?
      (?: [^\s&,;)\]}>"'\\] | [&,;)\]}>"'\\](?![\s&,;)\]}>"'\\]|\Z|[\w.-]{1,100}["']?[=:]) )++
    """,
    re.VERBOSE | re.DOTALL,
)


def redact_text(text: str) -> str:
    """
    Return a text with its secrets masked.

    Masked are passwords in URLs, credentials in `Authorization` headers, values behind keys that look like secrets
    (`key=value`, `key: value`, `--key value`, quoted or not), and the values of environment variables with such names.
    """
    for literal in _literals():
        if literal in text:
            text = text.replace(literal, MASK)
    if ":" not in text and "=" not in text and "--" not in text:
        return text
    if "://" in text and "@" in text:
        text = _URL.sub(rf"\1{MASK}", text)
    lower = text.lower()
    if "authorization" in lower:
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    return _values_masked(text) if _STEM.search(lower) else text


def _values_masked(text: str) -> str:
    pieces: list[str] = []
    done = place = 0
    while key := _KEY.search(text, place):
        place = key.end()
        value = _VALUE.match(text, place) if looks_secret((key[1] or key[2])[-_MAX_KEY:]) else None
        if value:
            place = value.end()
            pieces += (text[done : key.end()], value["open"] or "", MASK, value["close"] or "")
            done = place
    return "".join((*pieces, text[done:])) if pieces else text


@cache
def _literals() -> tuple[str, ...]:
    """Return the values of environment variables that look like secrets, the longest first: one may hold another."""
    # Another thread may take a variable away meanwhile.
    found = {os.environ.get(name, "") for name in os.environ if looks_secret(name)}
    secrets = {value for value in found if len(value) >= _MIN_LITERAL and not _is_file(value)}
    return tuple(sorted(secrets, key=len, reverse=True))


def _is_file(value: str) -> bool:
    # PWD, GOOGLE_APPLICATION_CREDENTIALS: where something is, which messages about it must be able to say.
    return value.startswith("/") and os.path.exists(value)  # noqa: PTH110 - a Path may not be too long a name


def forget_environment() -> None:
    """Read the environment again when it is next needed."""
    _literals.cache_clear()


# --- Values -----------------------------------------------------------------------------------------------------


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
        return {
            _redacted_key(key): MASK if _is_secret_key(key) else _redacted(inner, depth - 1, seen)
            for key, inner in list(value.items())
        }
    items = [_redacted(inner, depth - 1, seen) for inner in list(value)]
    return items if isinstance(value, list) else tuple(items)


def _redacted_key(key: Any) -> Any:
    return key if key is None or type(key) in {bool, int, float} else _redacted(str(key), 0, {})


def _is_secret_key(key: Any) -> bool:
    return isinstance(key, str) and (looks_secret(key) or key.lower() in {"authorization", "proxy-authorization"})
