"""How Datadog's API is reached, and what is made of its answers."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from typing import Self

import pytest

from batch_observability.config import ConfigError
from batch_observability.datadog.access import access, site_of
from batch_observability.datadog.connection import TRIES, Api, LostError, RefusedError
from tests.datadog.conftest import resources
from tests.datadog.server import RESET_BEFORE

MONITORS = "v1.api.monitors_api:MonitorsApi"
KEYS = {"DD_API_KEY": "k" * 32, "DD_APP_KEY": "p" * 40}


class Says:
    """A server that always says the same."""

    def __init__(self, status: int, text: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


def asked(url: str, waited: list[float] | None = None):
    api = Api(access(KEYS, "datadoghq.com", url), wait=(waited if waited is not None else []).append)
    return api.repeatable(MONITORS, "list_monitors", page=0)


# --- Keys and addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["DD_API_KEY", "DD_APP_KEY"])
def test_a_key_that_is_missing_is_named_with_what_to_do(missing):
    for value in ({}, {missing: " "}):
        with pytest.raises(ConfigError, match=f"{missing} is not set: export an "):
            access({**{name: key for name, key in KEYS.items() if name != missing}, **value}, "datadoghq.com")


def test_a_key_is_never_repeated():
    with pytest.raises(ConfigError) as told:
        access({**KEYS, "DD_APP_KEY": "my key"}, "datadoghq.com")
    assert "my key" not in str(told.value)
    found = access(KEYS, "datadoghq.com")
    assert not [key for key in KEYS.values() if key in repr(found)]


def test_the_address_is_that_of_the_site():
    assert access(KEYS, "us5.datadoghq.com").url == "https://api.us5.datadoghq.com"
    assert (site_of({"DD_SITE": "datadoghq.eu"}), site_of({})) == ("datadoghq.eu", "datadoghq.com")
    assert site_of({"DD_SITE": "datadoghq.eu"}, "us3.datadoghq.com") == "us3.datadoghq.com"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:1/", "https://proxy.example.com:8443/dd"])
def test_another_server_may_stand_in_its_place(url):
    assert access(KEYS, "datadoghq.com", url).url == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://proxy.example.com", "would carry keys in the clear"),
        ("proxy.example.com", "is no address"),
        ("ftp://127.0.0.1", "is no address"),
        ("https://me@proxy.example.com", "is no address"),
        ("https://[", "is no address"),
        ("https://a:99999", "is no address"),
    ],
)
def test_keys_are_not_sent_just_anywhere(url, why):
    with pytest.raises(ConfigError, match=why) as told:
        access(KEYS, "datadoghq.com", url)
    assert repr(url) in str(told.value)


@pytest.mark.parametrize(("excepted", "proxied"), [("", True), ("127.0.0.1", False)])
def test_a_proxy_of_the_environment_is_used(monkeypatch, excepted, proxied):
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Says(200, '["from the proxy"]') as proxy, Says(200, "[]") as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", excepted)
        assert asked(server.url) == (["from the proxy"] if proxied else [])


# --- Answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"errors": ["one", "two"]}), "list_monitors was answered 400, one; two"),
        (json.dumps({"errors": [{"title": "Bad", "detail": "name is missing"}]}), "400, name is missing"),
        (json.dumps({"errors": {"id": "is used"}}), "400, {'id': 'is used'}"),
        (json.dumps({"status": "error"}), "400, {'status': 'error'}"),
        ("<html>\nno\x1b[31m</html>", r"400, <html> no \[31m</html>"),
        ("x" * 1000, "x" * 300 + r"\.\.\."),
        ("", "answered 400"),
    ],
)
def test_what_datadog_says_is_told_in_one_line(text, words):
    with Says(400, text) as server, pytest.raises(RefusedError, match=re.compile(words)) as told:
        asked(server.url)
    assert "\n" not in str(told.value)
    assert not [key for key in KEYS.values() if key in str(told.value)]


def test_what_is_no_json_is_another_server(capfd):
    with Says(200, "<html>Please log in</html>") as server, pytest.raises(LostError, match="is this Datadog's API"):
        asked(server.url)


def test_a_server_that_is_not_there_is_asked_a_few_times():
    with Says(200, "[]") as server:
        url = server.url
    waited: list[float] = []
    with pytest.raises(LostError, match=r"no answer of Datadog's API: .*refused"):
        asked(url, waited)
    assert len(waited) == TRIES - 1
    assert all(later > earlier for earlier, later in pairwise(waited))


def test_a_create_is_sent_once(datadog, session):
    one = session()
    datadog.faults[1] = RESET_BEFORE
    body = next(each.body for each in resources() if each.kind == "pipeline")
    with pytest.raises(LostError):
        one.api.once("v1.api.logs_pipelines_api:LogsPipelinesApi", "create_logs_pipeline", body=body)
    assert (len(datadog.requests), one.api.requests, one.waited) == (1, 1, [])


def test_the_client_that_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datadog_api_client", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'airflow-batch-observability[datadog-api]'")):
        Api(access(KEYS, "datadoghq.com"))
