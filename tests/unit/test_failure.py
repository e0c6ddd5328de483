"""A failure is described in bounded, masked words, and equal failures have equal fingerprints, on every host."""

from __future__ import annotations

import random
import re
import string
import subprocess
import sys
import textwrap
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability.failure import describe

SECRET = "".join(random.choices(string.ascii_letters + string.digits, k=24))


def caught(function, *args):
    """Return what a function raises, with this frame in its traceback, as any caller's is."""
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def load(tmp_path, code, folder="dags", module="score", file="score.py"):
    """Return a module of the user's, at a place of its own."""
    path = tmp_path / folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    loaded = types.ModuleType(module)
    exec(compile(path.read_text(), str(path), "exec"), loaded.__dict__)
    return loaded


# --- What it says ------------------------------------------------------------------------------------------------


def test_type_message_and_traceback_are_told():
    def fail():
        raise LookupError("no such table")

    failure = describe(caught(fail))
    assert (failure.kind, failure.message) == ("LookupError", "no such table")
    assert failure.stack.startswith("Traceback (most recent call last):")
    assert failure.stack.endswith("LookupError: no such table\n")
    assert re.fullmatch("[0-9a-f]{16}", failure.fingerprint)
    assert (failure.causes, failure.notes) == ((), ())


def test_causes_are_told_the_nearest_first():
    def fail():
        try:
            try:
                raise KeyError("user")
            except KeyError:
                raise ValueError("bad row")  # noqa: B904
        except ValueError as error:
            raise RuntimeError("load failed") from error

    assert describe(caught(fail)).causes == ("ValueError: bad row", "KeyError: 'user'")


def test_a_context_that_is_suppressed_is_no_cause():
    def fail():
        try:
            raise KeyError("user")
        except KeyError:
            raise ValueError("bad row") from None

    assert describe(caught(fail)).causes == ()


def test_members_of_groups_are_causes():
    inner = ExceptionGroup("inner", [KeyError("b"), TypeError("c")])
    assert describe(ExceptionGroup("outer", [ValueError("a"), inner])).causes == (
        "ValueError: a",
        "ExceptionGroup: inner (2 sub-exceptions)",
        "KeyError: 'b'",
        "TypeError: c",
    )


def test_notes_are_told():
    error = ValueError("bad row")
    error.add_note("row 17")
    error.add_note("of flights")
    assert describe(error).notes == ("row 17", "of flights")


def test_secrets_are_masked_everywhere():
    def fail():
        try:
            raise KeyError(f"password={SECRET}")
        except KeyError as error:
            error.add_note(f"token={SECRET}")
            raise ValueError(f"db://bob:{SECRET}@host") from error

    error = caught(fail)
    error.add_note(f"token={SECRET}")
    assert SECRET not in repr(describe(error))
    assert describe(error, lambda text: text.replace("ValueError", "X")).stack.endswith(
        f"X: db://bob:{SECRET}@host\ntoken={SECRET}\n"
    )


# --- Bounds ------------------------------------------------------------------------------------------------------


def test_it_is_bounded_and_says_what_was_cut():
    def deeper(depth):
        if not depth:
            raise LookupError("x" * 50_000)
        deeper(depth - 1)

    error = caught(deeper, 100)
    for number in range(100):
        error.add_note(f"{number} " + "n" * 5_000)
    last = error
    for number in range(100):
        last.__cause__ = KeyError(str(number) * 3_000)
        last = last.__cause__
    failure = describe(error)
    assert len(failure.message) == 4_000
    assert failure.message.endswith("x… [cut: 50,000 characters]")
    assert len(failure.stack) == 12_000
    assert re.match(r"\[cut: [\d,]+ characters\] …\n", failure.stack)
    assert len(failure.causes) == len(failure.notes) == 20
    assert max(map(len, failure.causes + failure.notes)) == 1_000


def test_a_chain_that_ends_in_itself_ends():
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    assert describe(first).causes == ("KeyError: 'b'",)


def test_a_chain_of_any_length_ends():
    error = last = ValueError("first")
    for number in range(3_000):
        last.__cause__ = KeyError(number)
        last = last.__cause__
    assert len(describe(error).causes) == 20


class Unspeakable(Exception):  # noqa: N818
    """Fails at whatever it is asked for."""

    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__

    @property
    def __notes__(self):
        raise RuntimeError("no notes")


def test_an_error_that_fails_at_everything_is_told():
    def fail():
        raise Unspeakable from Unspeakable()

    failure = describe(caught(fail))
    assert (failure.kind, failure.message) == ("Unspeakable", "the error cannot be printed")
    assert "Unspeakable" in failure.stack
    assert failure.causes == ("Unspeakable: the error cannot be printed",)


@pytest.mark.parametrize("notes", [3, "text", [1, None, b"x"], {"a": 1}])
def test_notes_may_be_anything(notes):
    error = ValueError("x")
    error.__notes__ = notes
    assert all(isinstance(note, str) for note in describe(error).notes)


def test_what_cannot_be_masked_is_not_shown():
    def fail(text):
        raise RuntimeError(text)

    assert SECRET not in repr(describe(ValueError(SECRET), fail))


@given(st.text(), st.lists(st.text(), max_size=3))
@settings(deadline=None)
def test_any_text_is_survived(message, notes):
    error = ValueError(message)
    error.__notes__ = notes
    assert describe(error).kind == "ValueError"


# --- The fingerprint ---------------------------------------------------------------------------------------------

CODE = """
import json

def read(text):
    return json.loads(text)

def main(text):
    return read(text)
"""


def fingerprint(module, *args):
    return describe(caught(module.main, *args)).fingerprint


def test_it_is_equal_whatever_the_place_the_line_and_the_message(tmp_path):
    one = load(tmp_path, CODE)
    moved = load(tmp_path, "# A comment.\n\n\n" + CODE, folder="srv/bundles/3f2a/dags")
    assert fingerprint(one, "{") == fingerprint(one, "[1,") == fingerprint(moved, "x")


def test_it_is_equal_under_the_names_that_airflow_gives_to_dag_files(tmp_path):
    code = CODE + "\nclass Bad(Exception): ...\n\ndef read(text):\n    raise Bad(text)\n"
    prints = {
        fingerprint(load(tmp_path, code, folder=digit, module=f"unusual_prefix_{digit * 40}_score"), "x")
        for digit in "0a9"
    }
    assert prints == {fingerprint(load(tmp_path, code), "x")}


def test_it_differs_by_type_function_and_module(tmp_path):
    prints = [
        fingerprint(load(tmp_path, CODE), "{"),
        fingerprint(load(tmp_path, CODE), 3),
        fingerprint(load(tmp_path, CODE.replace("read(", "parse(")), "{"),
        fingerprint(load(tmp_path, CODE, module="other", file="other.py"), "{"),
        fingerprint(load(tmp_path, CODE.replace("return read(text)", "return json.loads(text)")), "{"),
    ]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("folder", ["lib/python3.11/site-packages", "lib/python3/dist-packages"])
def test_code_that_is_installed_does_not_count(tmp_path, folder):
    def calling(library):
        user = load(tmp_path, "def main(call):\n    return call()\n")
        return fingerprint(user, library.main)

    one = load(tmp_path, "def main():\n    raise ValueError\n", folder=folder, module="library")
    newer = load(
        tmp_path, "def main():\n    inner()\ndef inner():\n    raise ValueError\n", folder=folder, module="library"
    )
    assert calling(one) == calling(newer)


def test_where_there_is_no_code_of_the_users_all_code_counts(tmp_path):
    def of(code):
        library = load(tmp_path, code, folder="lib/site-packages", module="library")
        error = caught(library.main)
        error.__traceback__ = error.__traceback__.tb_next
        return describe(error).fingerprint

    assert of("def main():\n    raise ValueError\n") != of(
        "def main():\n    inner()\ndef inner():\n    raise ValueError\n"
    )


def test_how_deep_a_recursion_went_does_not_count(tmp_path):
    module = load(tmp_path, "def main(n):\n    return even(n)\ndef even(n):\n    return odd(n - 1) if n else 1 / 0\n"
                            "def odd(n):\n    return even(n - 1)\n")  # fmt: skip
    assert fingerprint(module, 4) == fingerprint(module, 40)
    assert describe(caught(module.main, -1)).kind == "RecursionError"


def test_how_many_members_of_a_kind_a_group_has_does_not_count():
    def of(*members):
        return describe(ExceptionGroup("x", members)).fingerprint

    assert of(KeyError(1), ValueError(2)) == of(ValueError(1), KeyError(2), ValueError(3))
    assert of(KeyError(1)) != of(ValueError(1))


def test_a_cause_of_another_type_makes_another_failure():
    def of(cause):
        error = RuntimeError("load failed")
        error.__cause__ = cause
        return describe(error).fingerprint

    assert of(KeyError(1)) == of(KeyError(2))
    assert of(KeyError(1)) != of(OSError(1))


@pytest.mark.parametrize("how", [["score.py"], ["-m", "score"], ["-c", "import score; score.main()"]])
def test_it_is_equal_however_a_script_is_started(tmp_path, how):
    """And in every process: Python's own hashes differ between two."""
    (tmp_path / "score.py").write_text(
        "from batch_observability.failure import describe\n"
        "def fail():\n    raise ValueError\n"
        "def main():\n    try:\n        fail()\n    except ValueError as error:\n"
        "        print(describe(error).fingerprint)\n"
        "if __name__ == '__main__':\n    main()\n"
    )

    def run(command, folder):
        command = [sys.executable, *command]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout

    assert run(how, tmp_path) == run(["score.py"], tmp_path)
