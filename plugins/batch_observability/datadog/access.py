"""
Where Datadog's API is and with which keys: from the environment only, so that no key is in a file, in a list of
processes or in what is printed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from batch_observability.config import ConfigError

API_KEY, APP_KEY, SITE = "DD_API_KEY", "DD_APP_KEY", "DD_SITE"
DEFAULT_SITE = "datadoghq.com"
_WHAT = {API_KEY: "an API key", APP_KEY: "an application key with the scopes that docs/dashboards.md lists"}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Access:
    """The address of an API, and the keys for it; they are in no text that is made of it."""

    url: str
    api_key: str = field(repr=False)
    app_key: str = field(repr=False)


def site_of(environ: Mapping[str, str], site: str = "") -> str:
    """Return Datadog's site: what is asked for, else `DD_SITE`, else that of the US."""
    return (site or environ.get(SITE, "")).strip() or DEFAULT_SITE


def access(environ: Mapping[str, str], site: str, url: str = "") -> Access:
    """
    Return how Datadog's API is reached.

    Args:
        environ: environment variables.
        site: Datadog's, whose API it is.
        url: of another server in its place, a proxy or a test; "" for none.

    Raises:
        ConfigError: for a key that is missing or cannot be one, or an address to which keys are not sent.
    """
    keys = {}
    for name, what in _WHAT.items():
        text = environ.get(name, "").strip()
        if not text:
            raise ConfigError(f"{name} is not set: export {what}")
        if not re.fullmatch(r"[\x21-\x7e]+", text):
            # The value is a secret: it is not repeated.
            raise ConfigError(f"{name} has blanks or other letters that no key has: export it again")
        keys[name] = text
    return Access(_checked(url.rstrip("/")) if url else f"https://api.{site}", keys[API_KEY], keys[APP_KEY])


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username or port == 0:
        raise ConfigError(f"--url {url!r} is no address of a server: write for example https://proxy.example.com:8443")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError(f"--url {url!r} would carry keys in the clear: write https://")
    return url
