"""JSON over HTTP to a server on loopback: the way in which live tests talk to Airflow and to the test agent."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.live.processes import LiveError

if TYPE_CHECKING:
    from collections.abc import Mapping

# A proxy of the environment must not see, or break, what goes to loopback.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RestError(LiveError):
    """The server answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        """Keeps the status beside the message."""
        super().__init__(message)
        self.status = status


def call(
    url: str,
    method: str = "GET",
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> Any:
    """Sends `body` as JSON and returns the decoded answer, or its text if it is not JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with _DIRECT.open(request, timeout=timeout) as response:
            text = response.read().decode()
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")[:500]
        raise RestError(f"{method} {url} answered {error.code}: {detail}", error.code) from None
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def reachable(url: str) -> bool:
    """Returns whether something answers at `url`, be it with an error."""
    try:
        call(url, timeout=5)
    except RestError:
        return True
    except OSError:
        return False
    return True


def quoted(part: str) -> str:
    """Returns `part` as one segment of a URL's path."""
    return urllib.parse.quote(part, safe="")
