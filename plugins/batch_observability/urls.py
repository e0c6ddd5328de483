"""
URLs in settings. They may hold a password, which no error repeats.
"""

from __future__ import annotations

from urllib.parse import urlsplit


class HiddenError(ValueError):
    """What is wrong with a value that must not be shown."""


def base_url(text: str) -> str:
    """
    Return the URL of a server, to which paths are added.

    Raises:
        ValueError: if it is none.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable or parts.query or parts.fragment:
        error = HiddenError if "@" in text else ValueError
        raise error("write a URL with http or https, for example https://proxy.example.com:8443/otlp")
    return text.rstrip("/")


def database_url(text: str) -> str:
    """
    Return the URL of a database, as SQLAlchemy takes it.

    Raises:
        HiddenError: if it is none.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    known = ("sqlite", "postgresql", "postgres")
    usable = "://" in text and (parts.netloc or parts.path.strip("/"))
    if parts.scheme.partition("+")[0] not in known or not usable:
        raise HiddenError("write sqlite:////path/to/ledger.db or postgresql://user@host/database")
    return text
