"""`batchobs ledger`, as a user calls it."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta

import pytest

from batch_observability.cli.ledger import add_parser
from batch_observability.ledger.address import shown
from batch_observability.ledger.store import Ledger
from tests.ledger.conftest import TIMEOUT_S
from tests.ledger.runs import ago_ns, finished, run, started


@pytest.fixture
def batchobs(url, monkeypatch):
    """Return a function that runs the command on this ledger and returns its exit code."""
    monkeypatch.setenv("BATCHOBS_LEDGER_URL", url)
    parser = argparse.ArgumentParser(prog="batchobs")
    add_parser(parser.add_subparsers(dest="command", required=True))

    def call(*arguments):
        options = parser.parse_args(["ledger", *arguments])
        return options.run(options)

    return call


def test_migrate_says_from_which_revision_to_which(batchobs, capsys):
    assert batchobs("migrate") == 0
    assert capsys.readouterr().out == "schema revision: nothing -> 0002\n"
    assert batchobs("migrate") == 0
    assert capsys.readouterr().out == "schema revision: 0002 -> 0002\n"


def test_info_fits_on_a_screen(batchobs, capsys, url):
    batchobs("migrate")
    start_ns = 1_700_000_000 * 10**9
    Ledger(url, TIMEOUT_S).apply_all(
        [finished(of=run("run-1", start_ns=start_ns)), started("run-2", start_ns=start_ns)]
    )
    capsys.readouterr()
    assert batchobs("info") == 0
    printed = capsys.readouterr().out
    assert "runs     2, 1 of them open" in printed
    assert "oldest   2023-11-14 22:13:20 UTC" in printed
    assert "success    1" in printed
    assert len(printed.splitlines()) < 20
    assert f"ledger   {shown(url)}\n" in printed


def test_info_as_json(batchobs, capsys, dialect):
    batchobs("migrate")
    capsys.readouterr()
    assert batchobs("info", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["dialect"], info["runs"], info["oldest_ns"]) == (dialect, 0, None)


def test_prune_says_how_many_it_deleted(batchobs, capsys, url):
    batchobs("migrate")
    old = run("old", start_ns=ago_ns(timedelta(days=40)))
    Ledger(url, TIMEOUT_S).apply_all([finished(of=old), finished("new")])
    capsys.readouterr()
    assert batchobs("prune", "--keep", "30d") == 0
    assert capsys.readouterr().out == "deleted 1 runs that ended more than 30d ago\n"


@pytest.mark.parametrize("dialect", ["sqlite"])
@pytest.mark.parametrize("arguments", [["prune"], ["prune", "--keep", "never"], ["prune", "--keep", "0d"], []])
def test_what_was_asked_wrongly_is_told(batchobs, capsys, arguments):
    with pytest.raises(SystemExit) as left:
        batchobs(*arguments)
    assert left.value.code == 2
    assert "write for example" in capsys.readouterr().err or arguments in ([], ["prune"])


def test_a_ledger_that_cannot_be_used_is_told_in_one_line(batchobs, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BATCHOBS_LEDGER_URL", f"sqlite:///{tmp_path}")
    assert batchobs("info") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"batchobs: ledger sqlite:///{tmp_path} is a folder: name a file in it, or remove it\n"
