"""
Where the ledger is, in words that are safe to print: an address may hold a password, an error or a log line may not.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

_ACCOUNT = re.compile(r"([^:/@?]*)(?::(.*))?@", re.DOTALL)
_SECRETS = ("password", "sslpassword", "passfile")


class LedgerError(Exception):
    """
    The ledger cannot be used. The message is one line: what, where, and the remedy.

    `retry` says whether the same may work in a moment.
    """

    def __init__(self, what: str, url: str, remedy: str, *, retry: bool) -> None:
        text = " ".join(f"ledger {shown(url)} {_without_secrets(what, url)}: {remedy}".split())
        super().__init__(text)
        self.retry = retry


def shown(url: str) -> str:
    """Return the address without password and options."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.partition("+")[0]
    if scheme == "sqlite":
        return url
    if not separator:
        return "..."
    account = _ACCOUNT.match(rest)
    after = rest[account.end() :] if account else rest
    if account and "?" in (account[2] or ""):
        # An @ in the options, or an unquoted question mark in a password: what is what cannot be told.
        return f"{scheme}://..."
    place = re.split(r"[?#]", after, maxsplit=1)[0]
    return f"{scheme}://{f'{account[1]}@' if account else ''}{place}"


def _without_secrets(text: str, url: str) -> str:
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> set[str]:
    scheme, separator, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        return set()
    if not separator:
        return {url} - {""}
    account = _ACCOUNT.match(rest)
    password = (account[2] or "") if account else ""
    found = {password, unquote(password), *password.split("@")}
    found |= {value for name, value in parse_qsl(rest.partition("?")[2]) if name in _SECRETS}
    return found - {""}
