"""
Requests to Datadog's own intakes, with the API key of an organisation.

Standard library only. The key is read from the environment when something is sent, and is kept nowhere; no redirect is
followed with it, and an answer that repeats it is told without it.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from batch_observability.redact import MASK, redact_text

KEY, SITE = "DD_API_KEY", "DD_SITE"
# What to do where an intake refuses the key.
REMEDY = f"check {KEY}, and {SITE}, which it belongs to"
_SITE = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]+", re.IGNORECASE)
_TIMEOUT_S = 15.0
_MAX_ANSWER = 1000
_FAST = 3
_KEY_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class IntakeError(Exception):
    """
    An intake did not take a request, and may take it later. The message is one line for the user, without the key.

    Args:
        problem: what is wrong.
        uncertain: the request was sent, and nobody said what became of it.
    """

    def __init__(self, problem: str, *, uncertain: bool = False) -> None:
        super().__init__(problem)
        self.uncertain = uncertain


@dataclass(frozen=True)
class Answer:
    """Status of an answer, what was said with it in words, and as it came."""

    status: int
    said: str = ""
    body: bytes = b""

    @property
    def taken(self) -> bool:
        """Whether the intake took it."""
        return 200 <= self.status < 300

    @property
    def key_refused(self) -> bool:
        """Whether the intake does not know the key."""
        return self.status in _KEY_REFUSED

    @property
    def too_large(self) -> bool:
        """Whether less at once may be taken."""
        return self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __str__(self) -> str:
        """Return it as words: `403: {"errors": ["Forbidden"]}`."""
        return f"{self.status}: {self.said}" if self.said else str(self.status)


def api_key(environ: Mapping[str, str]) -> str:
    """
    Return the API key.

    Raises:
        IntakeError: if there is none, or it cannot be one; it is not shown.
    """
    key = environ.get(KEY, "").strip()
    if not key:
        raise IntakeError(f"{KEY} is not set: without it Datadog takes nothing")
    if not key.isascii() or not key.isprintable() or " " in key:
        # The standard library would repeat it in its complaint.
        raise IntakeError(f"{KEY} is no key: it holds white space or what is not ASCII")
    return key


def site(environ: Mapping[str, str]) -> str:
    """
    Return the Datadog site of the organisation.

    Raises:
        IntakeError: if what is set is none.
    """
    name = environ.get(SITE, "").strip() or "datadoghq.com"
    if not _SITE.fullmatch(name):
        raise IntakeError(
            f"{SITE} is {redact_text(name)!r}: write the site of your organisation, for example datadoghq.eu"
        )
    return name


def otlp_address(environ: Mapping[str, str], configured: str) -> str:
    """
    Return the URL of the OTLP intake, below which each signal has a path: the one that is configured, or the site's.

    Raises:
        IntakeError: if the site is none.
    """
    return configured or f"https://otlp.{site(environ)}"


def post(what: str, url: str, body: bytes, headers: Mapping[str, str], environ: Mapping[str, str]) -> Answer:
    """
    Send a request, compressed and with the key.

    Args:
        what: the intake in words, for messages.
        url: of the intake.
        body: what it is to take.
        headers: beside those of key and compression.
        environ: holds the key.

    Raises:
        IntakeError: if there is no key, or no answer.
    """
    import http.client
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_arguments: Any) -> None:
            """Follow nobody: the key is for the intake."""

    key = api_key(environ)
    known = {"DD-API-KEY": key, "Content-Encoding": "gzip", **headers}
    request = urllib.request.Request(url, gzip.compress(body, _FAST), known, method="POST")  # noqa: S310  (checked by who configures it)
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=_TIMEOUT_S) as response:
            answer = b""
            with suppress(OSError, http.client.HTTPException):
                answer = response.read(_MAX_ANSWER)
            return Answer(int(response.status), body=answer)
    except urllib.error.HTTPError as error:
        answer = b""
        with error, suppress(OSError, http.client.HTTPException):
            answer = error.read(_MAX_ANSWER)
        return Answer(error.code, _without_key(answer, key))
    except (OSError, http.client.HTTPException) as error:
        # The standard library wraps what hinders it until a request is sent, and only that.
        unsent = isinstance(error, urllib.error.URLError)
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        said = str(reason) or type(reason).__name__
        raise IntakeError(f"{what} at {redact_text(url)} did not answer: {said}", uncertain=not unsent) from None


def _without_key(answer: bytes, key: str) -> str:
    text = " ".join(answer.decode("utf-8", "replace").split())
    return redact_text(text.replace(key, MASK))[:200]
