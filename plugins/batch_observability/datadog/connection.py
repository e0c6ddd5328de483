"""
Requests to Datadog's API by its own client, which knows paths, hosts and headers; bodies stay plain JSON.

What is answered 429 did not happen: it waits as long as Datadog asks for and goes again. A failing server or a lost
connection says nothing about what happened: only what may happen twice is sent again, the rest is for the caller to
look up. The client's own retries would send a create again blindly, and are off.
"""

from __future__ import annotations

import json
import math
import random
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from batch_observability.config import ConfigError
from batch_observability.datadog.access import Access

# Tries of what may happen twice, and the first wait between two.
TRIES, BACKOFF_S = 5, 0.5
# The longest wait for a rate limit, and how many in a row.
LONGEST_WAIT_S, WAITS = 120.0, 10
_TIMEOUT_S = (10.0, 60.0)
_LIMITED, _UNAUTHORIZED, _FORBIDDEN, NOT_FOUND = 429, 401, 403, 404
_WORDS = 300
_REMEDIES = {
    _UNAUTHORIZED: "the keys are not accepted: are DD_API_KEY, DD_APP_KEY and DD_SITE those of your organization?",
    _FORBIDDEN: "the keys may not do this: give the application key the scope, see docs/dashboards.md",
}


class ApiError(Exception):
    """A request failed. The message is one line for the user."""


class RefusedError(ApiError):
    """Datadog answered that it does not do it: nothing happened. `status` is that of HTTP."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status

    @property
    def is_forbidden(self) -> bool:
        """Whether the keys lack the scope: all requests of the kind would be answered so."""
        return self.status == _FORBIDDEN


class LostError(ApiError):
    """There was no answer, or one of a failing server: it may have happened or not."""


class StopError(ApiError):
    """Nothing else would go either: the keys are not accepted, or the rate limit asks for too long a wait."""


@dataclass(frozen=True)
class _Answer:
    """What a server said: status, headers in lower case, and text."""

    status: int
    headers: Mapping[str, str]
    text: str


class Api:
    """
    Datadog's API.

    Args:
        access: where it is, and the keys.
        wait: waits so many seconds.

    Raises:
        ConfigError: if Datadog's client is not installed.
    """

    def __init__(self, access: Access, wait: Callable[[float], None] = time.sleep) -> None:
        try:
            from datadog_api_client import ApiClient, Configuration
            from urllib3 import Retry
        except ImportError:
            raise ConfigError(
                "Datadog's client is not installed: pip install 'airflow-batch-observability[datadog-api]'"
            ) from None

        configuration = Configuration(
            host=access.url,
            api_key={"apiKeyAuth": access.api_key, "appKeyAuth": access.app_key},
            preload_content=False,
            check_input_type=False,
            request_timeout=_TIMEOUT_S,
            # Since 2.46. A redirect is not followed: it would carry the keys to another host.
            retry_policy=Retry(total=0, redirect=False, status=False),
        )
        configuration.proxy = _proxy(access.url)
        self._client = ApiClient(configuration)
        self._groups: dict[str, Any] = {}
        self.wait = wait
        self.requests = 0

    def repeatable(self, group: str, operation: str, **arguments: Any) -> Any:
        """Return what a request answers that changes nothing, or that may happen twice; as `once`."""
        for attempt in range(1, TRIES + 1):
            try:
                return self.once(group, operation, **arguments)
            except LostError:
                if attempt == TRIES:
                    raise
            # Not all at the same moment, where several of us wait for the same server.
            self.wait(BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))  # noqa: S311  (no secret)
        raise AssertionError

    def once(self, group: str, operation: str, **arguments: Any) -> Any:
        """
        Return what a request answers that must not happen twice.

        Args:
            group: module and class of the client that has the operation: `v1.api.monitors_api:MonitorsApi`.
            operation: its name there.
            arguments: as it takes them, bodies as plain JSON.

        Raises:
            RefusedError: it did not happen.
            LostError: nobody knows whether it happened.
            StopError: it did not happen, and nothing else will.
        """
        for _ in range(WAITS):
            answer = self._answer(group, operation, arguments)
            if answer.status != _LIMITED:
                return _checked(answer, operation)
            asked = _asked_wait_s(answer.headers)
            if asked > LONGEST_WAIT_S:
                raise StopError(f"Datadog's rate limit asks to wait {asked:.0f} s: run it again after that")
            self.wait(asked)
        raise StopError(f"Datadog's rate limit was still reached after {WAITS} waits: run it again later")

    def _answer(self, group: str, operation: str, arguments: Mapping[str, Any]) -> _Answer:
        from datadog_api_client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        self.requests += 1
        try:
            response = getattr(self._group(group), operation)(**arguments)
            headers = {name.lower(): value for name, value in response.headers.items()}
            return _Answer(response.status, headers, response.data.decode("utf-8", "replace"))
        except ApiException as error:
            if not error.status:
                raise LostError(f"no connection to Datadog's API: {_one_line(error.reason)}") from None
            text = error.body if isinstance(error.body, str) else json.dumps(error.body)
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            return _Answer(error.status, headers, text)
        except (HTTPError, OSError) as error:
            raise LostError(f"no answer of Datadog's API: {_reason(error)}") from None

    def _group(self, name: str) -> Any:
        if name not in self._groups:
            module, _, group = name.partition(":")
            self._groups[name] = getattr(import_module(f"datadog_api_client.{module}"), group)(self._client)
        return self._groups[name]


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for an address; the client itself asks nobody."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    return None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)


def _checked(answer: _Answer, operation: str) -> Any:
    status = answer.status
    if 200 <= status < 300:
        try:
            return json.loads(answer.text) if answer.text.strip() else None
        except ValueError:
            raise LostError(f"the answer to {operation} is no JSON: is this Datadog's API?") from None
    what = _remedy(answer, operation)
    if status == _UNAUTHORIZED:
        raise StopError(what)
    if status >= 500 or status == 408:
        raise LostError(what)
    raise RefusedError(status, what)


def _remedy(answer: _Answer, operation: str) -> str:
    said = _said(answer.text)
    known = _REMEDIES.get(answer.status)
    return f"{operation} was answered {answer.status}{f', {said}' if said else ''}{f': {known}' if known else ''}"


def _said(text: str) -> str:
    """Return Datadog's own words: `errors` is a list of texts, or of objects with a title and detail."""
    try:
        found = json.loads(text)
    except ValueError:
        return _one_line(text)
    errors = found.get("errors", found) if isinstance(found, dict) else found
    several = errors if isinstance(errors, list) else [errors] if errors else []
    words = [
        one.get("detail") or one.get("title") or str(one) if isinstance(one, dict) else str(one) for one in several
    ]
    return _one_line("; ".join(words))


def _one_line(text: object) -> str:
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return plain if len(plain) <= _WORDS else f"{plain[:_WORDS]}..."


def _reason(error: BaseException) -> str:
    """Return why, without the pools and objects that the client's libraries put around it."""
    inner = getattr(error, "reason", None)
    text = _one_line(inner or error)
    return text.rpartition(">: ")[2] or type(error).__name__


def _asked_wait_s(headers: Mapping[str, str]) -> float:
    """Return for how long Datadog asks to wait: https://docs.datadoghq.com/api/latest/rate-limits/."""
    for name in ("x-ratelimit-reset", "retry-after", "x-ratelimit-period"):
        try:
            seconds = float(headers[name])
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            # The period ends somewhere within the last second.
            return seconds + 0.1
    return BACKOFF_S * 2
