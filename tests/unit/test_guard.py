"""The guard: what fails inside harms nobody, is told once with the remedy, and is raised under pytest."""

from __future__ import annotations

import logging

import pytest

from batch_observability.guard import guarded


@guarded("default")
def divided(number):
    """Divide."""
    return 1 / number


@guarded(None)
def other():
    raise LookupError("lost")


def test_without_an_error_nothing_is_changed():
    assert divided(2) == 0.5
    assert (divided.__name__, divided.__doc__) == ("divided", "Divide.")


def test_an_error_is_raised_under_pytest():
    with pytest.raises(ZeroDivisionError):
        divided(0)


@pytest.mark.usefixtures("outside_pytest")
def test_an_error_gives_the_default_and_one_line_with_the_remedy(caplog):
    assert divided(0) == "default"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "batch_observability"
    assert record.getMessage() == (
        "batch_observability: divided failed, the task is not affected: ZeroDivisionError: division by zero. "
        "Run `batchobs doctor`."
    )
    assert record.exc_info is None


@pytest.mark.usefixtures("outside_pytest")
def test_each_place_is_told_once(caplog):
    assert [divided(0), divided(0), other(), other()] == ["default", "default", None, None]
    assert [record.getMessage().split()[1] for record in caplog.records] == ["divided", "other"]


@pytest.mark.usefixtures("outside_pytest")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_process_passes(error):
    """Airflow's task timeout is no `Exception` either: it may strike while our code runs."""

    @guarded(None)
    def interrupted():
        raise error

    with pytest.raises(error):
        interrupted()


@pytest.mark.usefixtures("outside_pytest")
def test_an_error_of_many_lines_is_told_in_one(caplog):
    @guarded(None)
    def broken():
        raise ValueError("one\ntwo")

    broken()
    assert len(caplog.records[0].getMessage().splitlines()) == 1
