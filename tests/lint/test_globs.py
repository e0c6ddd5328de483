"""What two patterns both match, against trying all names of a small alphabet."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability.catalog import Match
from batch_observability.lint.globs import both_match, covers, is_exact, matches, one_covers, task_of_both

NAMES = ["".join(letters) for length in range(6) for letters in product("ab", repeat=length)]
PIECES = st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "**"])
PATTERNS = st.lists(PIECES, max_size=4).map("".join)


@given(PATTERNS, PATTERNS)
@settings(max_examples=500)
def test_two_patterns_both_match_what_is_said_and_else_nothing(one, other):
    found = both_match(one, other)
    if found is None:
        assert not [name for name in NAMES if fnmatchcase(name, one) and fnmatchcase(name, other)]
    else:
        assert fnmatchcase(found, one)
        assert fnmatchcase(found, other)
    assert (both_match(other, one) is None) == (found is None)


@given(PATTERNS, PATTERNS)
@settings(max_examples=500)
def test_a_pattern_that_covers_another_matches_all_that_it_does(one, other):
    if covers(one, other):
        assert not [name for name in NAMES if fnmatchcase(name, other) and not fnmatchcase(name, one)]


@given(PATTERNS)
def test_a_pattern_covers_itself_and_a_star_all(pattern):
    assert covers(pattern, pattern)
    assert covers("*", pattern)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("churn_*", "*_daily", "churn_daily"),
        ("churn_*", "churn_daily", "churn_daily"),
        ("churn_?", "churn_[0-9]", "churn_0"),
        ("churn", "Churn", None),
        ("a*b", "a*c", None),
        ("", "*", ""),
    ],
)
def test_an_example_is_readable(one, other, name):
    assert both_match(one, other) == name


def test_tasks_are_those_of_both_ids():
    daily, score = Match("churn_*", "score"), Match("*", "sc*")
    assert task_of_both(daily, score) == ("churn_", "score")
    assert task_of_both(Match(), Match()) == ("any", "any")
    assert task_of_both(daily, Match("churn_*", "train")) is None
    assert one_covers(daily, score)
    assert not one_covers(daily, Match("*_daily", "score"))
    assert matches(daily, "churn_daily", "score")
    assert not matches(daily, "churn_daily", "train")
    assert is_exact(Match("churn", "score"))
    assert not is_exact(daily)
