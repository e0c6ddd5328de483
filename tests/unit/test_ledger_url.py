"""The ledger's address: what is taken for one, and that it is never shown, for it may hold a password."""

from __future__ import annotations

import logging

import pytest

from batch_observability.cli import main
from batch_observability.config import ConfigError, Settings, load

SECRET = "hunter2"
ADDRESS = f"postgresql://batchobs:{SECRET}@127.0.0.1:1/runs"
WRONG = [
    "",
    " ",
    "runs.db",
    "/var/lib/runs.db",
    "sqlite",
    "sqlite://",
    "sqlite:///",
    f"mysql://batchobs:{SECRET}@db/runs",
    f"batchobs:{SECRET}@db/runs",
    "postgresql://",
]
# Python's own parser of addresses refuses these, and says so with the address in full.
UNPARSABLE = [f"postgresql://batchobs:{SECRET}@[::1/runs", f"postgresql://batchobs:{SECRET}\u2100@db/runs"]


def problem_of(address):
    with pytest.raises(ConfigError) as caught:
        load({"BATCHOBS_LEDGER_URL": address})
    return str(caught.value)


def test_without_an_address_the_ledger_is_a_file_in_the_state_folder():
    assert Settings(state_dir="/var/lib/batchobs").ledger == "sqlite:////var/lib/batchobs/ledger.db"
    assert Settings(ledger_url=ADDRESS).ledger == ADDRESS


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////var/lib/runs.db",
        "postgres://db/runs",
        "postgresql://db/runs",
        "postgresql+psycopg://batchobs@db:5432/runs?sslmode=require",
        "postgresql:///runs?host=/run/postgresql",
    ],
)
def test_an_address_of_either_kind_is_taken(address):
    assert load({"BATCHOBS_LEDGER_URL": f" {address} "}).ledger == address


@pytest.mark.parametrize("address", WRONG)
def test_another_address_is_refused_in_one_line_that_does_not_show_it(address):
    problem = problem_of(address)
    assert problem == (
        "setting BATCHOBS_LEDGER_URL is not usable: "
        "write sqlite:////path/to/ledger.db or postgresql://user@host/database"
    )


@pytest.mark.parametrize("address", UNPARSABLE)
def test_an_address_that_cannot_be_parsed_is_not_shown_either(address):
    assert SECRET not in problem_of(address)


def test_an_address_is_in_no_text_of_the_settings(caplog):
    settings = load({"BATCHOBS_LEDGER_URL": ADDRESS})
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("any").warning("with %s and %r", settings, settings)
    assert SECRET not in f"{settings} {settings!r} {caplog.text}"
    assert settings.ledger == ADDRESS


def test_it_survives_the_way_to_the_sidecar():
    assert Settings.from_frame(Settings(ledger_url=ADDRESS).as_frame()).ledger == ADDRESS


@pytest.mark.parametrize("options", [["doctor"], ["doctor", "--json"], ["ledger", "info"]])
@pytest.mark.parametrize("address", [ADDRESS, f"mysql://batchobs:{SECRET}@db/runs"])
def test_no_command_shows_it(monkeypatch, tmp_path, capsys, options, address):
    monkeypatch.setenv("BATCHOBS_LEDGER_URL", address)
    monkeypatch.setenv("BATCHOBS_LEDGER_TIMEOUT", "1")
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("BATCHOBS_EXPORT", "spool")
    main(options)
    printed = capsys.readouterr()
    assert printed.out + printed.err
    assert SECRET not in printed.out + printed.err
