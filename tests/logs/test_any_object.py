"""Any Python object as message or field, any text, any depth: one valid JSON line each, and never an exception."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import logging
import pathlib
import secrets
import threading
import time
import types
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_observability.config import Settings
from batch_observability.logs import configure as configuring
from batch_observability.logs import get_logger
from batch_observability.logs.jsonable import plain
from tests.logs.conftest import Written


class Failing:
    """Fails in all that it is asked."""

    def __fail(self, *args, **kwargs):
        raise RuntimeError("no")

    __str__ = __repr__ = __len__ = __iter__ = __getattr__ = __bool__ = __hash__ = __eq__ = __int__ = __fail
    __getitem__ = __contains__ = __index__ = __float__ = __format__ = __class_getitem__ = __fail


class Pretending:
    """Says that it is of another class."""

    __class__ = dict

    def __repr__(self) -> str:
        return "pretending"


class FailingClass:
    """Cannot say of what class it is."""

    @property
    def __class__(self):
        raise RuntimeError("no")


class FailingDict(dict):
    """Cannot say what it holds."""

    def items(self):
        raise RuntimeError("no")

    __iter__ = keys = values = items


class FailingList(list):
    """Cannot say what it holds."""

    def __iter__(self):
        raise RuntimeError("no")

    __len__ = __repr__ = __iter__


class Text(str):
    """Text that fails as text."""

    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __len__ = __format__ = encode = __mod__ = lower = __str__


class NotText:
    """Says something that is no text."""

    def __str__(self):
        return 3  # noqa: PLE0307  (that is the point)

    __repr__ = __str__


class Colour(enum.Enum):
    """A plain one."""

    RED = 1


class Weekday(enum.StrEnum):
    """One that is text."""

    MONDAY = "mon"


class Number(enum.IntEnum):
    """One that is a number."""

    ONE = 1


@dataclasses.dataclass
class Model:
    """As users have them."""

    name: str = "churn"
    password: str = "hunter" + "2hunter2"


class FailingError(Exception):
    """Cannot be printed."""

    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class Number2(float):
    """A number that fails as a number."""

    __slots__ = ()

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __add__ = __float__ = __eq__ = __hash__ = __repr__


class Whole(int):
    """A whole number that fails as one."""

    __slots__ = ()

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __add__ = __index__ = __int__ = __eq__ = __hash__ = __repr__


@dataclasses.dataclass(frozen=True)
class Odd:
    """Stands for an object with that name."""

    name: str


def holding_itself() -> list:
    """A list that holds itself, in a dict, too."""
    it: list = [1]
    it.extend([it, {"it": it}])
    return it


def deep(depth: int, kind: type = list):
    """As deep as it is said, by far more than Python can follow."""
    it = kind()
    for _ in range(depth):
        it = {"in": it} if kind is dict else [it]
    return it


def doubling() -> list:
    """Small in memory, and larger than the world when it is written."""
    it: list = ["lol"]
    for _ in range(60):
        it = [it, it]
    return it


def generator():
    """One that would go on for ever."""
    while True:
        yield 1


ODD = {
    "failing": Failing(),
    "failing class": FailingClass(),
    "pretending": Pretending(),
    "failing dict": FailingDict(a=1),
    "failing list": FailingList([1]),
    "failing text": Text("x"),
    "not text": NotText(),
    "number": Number2(1.5),
    "whole": Whole(7),
    "error": FailingError(),
    "itself": holding_itself(),
    "deep": deep(100_000),
    "deep dict": deep(3000, dict),
    "doubling": doubling(),
    "generator": generator(),
    "many digits": 10**5000,
    "minus": -(10**30),
    "nan": float("nan"),
    "inf": float("-inf"),
    "nul": "\0\x1b[31m\x7f\x85\u2028",
    "bytes": b"\xff\0a",
    "bytearray": bytearray(b"\xc3"),
    "memory": memoryview(b"x"),
    "surrogate": "\ud800",
    "key": {"\udfff": "\udc00"},
    "keys": {1: 1, "1": 2, None: 3, (1, 2): 4, 1.5: 5, float("nan"): 6, b"x": 7, Failing: 8, frozenset(): 9},
    "sets": {frozenset({1}), 2},
    "deque": collections.deque([1]),
    "counter": collections.Counter("aab"),
    "chain": collections.ChainMap({"a": 1}),
    "proxy": types.MappingProxyType({"a": 1}),
    "range": range(3),
    "namespace": types.SimpleNamespace(a=1),
    "enum": Colour.RED,
    "text enum": Weekday.MONDAY,
    "int enum": Number.ONE,
    "dataclass": Model(),
    "decimal": decimal.Decimal("1.10"),
    "signalling": decimal.Decimal("sNaN"),
    "fraction": fractions.Fraction(1, 3),
    "complex": 1j,
    "date": dt.date(2013, 2, 1),
    "uuid": uuid.UUID(int=1),
    "path": pathlib.Path("/tmp"),
    "type": int,
    "module": json,
    "function": deep,
    "lambda": lambda: 0,
    "lock": threading.Lock(),
    "ellipsis": ...,
    "not implemented": NotImplemented,
    "code": deep.__code__,
    "array": np.arange(10**6),
    "scalar": np.float32(1.5),
    "int64": np.int64(5),
    "bool": np.bool_(True),
    "nat": np.datetime64("NaT"),
    "empty": np.array([]),
    "void": np.zeros(1, dtype=[("a", "i4")])[0],
    "long double": np.longdouble(1),
    "object": np.full(1, None),
}

texts = st.text(st.characters(codec=None, exclude_categories=()))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary() | st.complex_numbers()
# Hypothesis gets names: it asks what it makes for its text. What takes long has a test of its own.
odd = st.sampled_from(sorted(set(ODD) - {"doubling"})).map(Odd)
hashables = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary() | st.tuples(texts, st.integers())
)
anything = st.recursive(
    scalars | odd | st.dates() | st.decimals() | st.uuids() | st.timedeltas(),
    lambda inner: st.lists(inner) | st.dictionaries(hashables, inner) | st.tuples(inner, inner),
    max_leaves=12,
)
many = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def real(value):
    """Return what is meant: with the odd objects for their names."""
    if isinstance(value, Odd):
        return ODD[value.name]
    if isinstance(value, list | tuple):
        return type(value)(real(inner) for inner in value)
    return {key: real(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("name", ODD)
def test_an_odd_object_is_no_reason_not_to_log(written, run, name):
    log, it = get_logger("odd"), ODD[name]
    # Beside the handlers of pytest, which raise.
    plain_log = logging.Logger("odd")  # noqa: LOG001
    plain_log.addHandler(configuring.RootHandler())
    calls = [
        lambda: log.info(it),
        lambda: log.info("field", it=it, its=[it]),
        lambda: log.info("argument %s %d", it, it),
        lambda: log.info(it, it),
        lambda: log.bind(it=it).info("bound"),
        lambda: log.error("error", exc_info=it),
        lambda: log.info("extra", extra=it),
        lambda: plain_log.info(it),
        lambda: plain_log.info("argument %s", it),
        lambda: plain_log.info("extra", extra={"it": it}),
    ]
    if name == "failing class":
        # stdlib logging itself asks an argument for its class.
        del calls[-2]
    for call in calls:
        call()
    records = written.records()
    assert len(records) == len(calls)
    assert all(record["dd.span_id"] == str(run.context.span_id) for record in records)


@pytest.mark.thorough
@many
@given(message=anything, fields=st.dictionaries(texts, anything, max_size=5))
def test_anything_is_one_valid_line(message, fields):
    written = Written()
    lines = configuring.Lines(Settings(log_burst=0), lambda line: written.stream.write(line + "\n"))
    lines.write("any", "info", {"event": real(message), **{f"f{name}": real(value) for name, value in fields.items()}})
    record = written.record()
    assert isinstance(record["event"], str)
    json.dumps(record).encode()
    assert json.dumps(record, ensure_ascii=False).encode()


@pytest.mark.thorough
@many
@given(message=anything, arguments=st.lists(anything, max_size=3), fields=st.dictionaries(texts, anything, max_size=5))
def test_a_call_with_anything_never_raises(message, arguments, fields):
    written = Written()
    configuring.configure(Settings(log_burst=0), logging.DEBUG, stream=written.stream)
    get_logger("any").warning(real(message), *real(arguments), **real(fields))
    assert written.record()["level"] == "warning"


@pytest.fixture(autouse=True)
def _put_back(logging_put_back):
    return None


def test_what_can_be_kept_is_kept():
    assert plain({"rows": np.int64(5), "score": np.float32(1.5), "nested": {"a": (1, {2})}, 3: None}) == {
        "rows": 5, "score": 1.5, "nested": {"a": [1, [2]]}, "3": None
    }  # fmt: skip
    assert plain([Weekday.MONDAY, Number.ONE, decimal.Decimal("1.10"), pathlib.Path("/tmp"), b"abc"]) == [
        "mon", 1, "1.10", "/tmp", "abc"
    ]  # fmt: skip
    assert plain([float("nan"), 2**63, -(2**70)]) == ["nan", 2**63, hex(-(2**70))]


def test_keys_that_look_the_same_are_all_there():
    assert len(plain({1: "a", "1": "b", 1.5: "c", "1.5": "d"})) == 4


class Nameless(type):
    """A class that cannot say what it is called."""

    __name__ = property(lambda cls: 1 / 0)


def test_an_object_that_cannot_be_named_is_no_reason_not_to_log(written):
    class Held(metaclass=Nameless):
        def __repr__(self):
            raise RuntimeError("no")

    get_logger("any").info("x", held=Held(), number=2**64, digits=10**5000, shared=[2**64])
    get_logger("any").info(Held())
    first, second = written.records()
    assert "cannot be printed" in first["held"]
    assert first["number"] == hex(2**64)
    assert first["shared"] == [hex(2**64)]
    assert first["digits"].startswith("0x")
    assert "cannot be printed" in second["event"]


def test_a_name_that_cannot_be_printed_is_no_reason_not_to_log(written):
    get_logger(Failing()).info("x")
    assert "cannot be printed" in written.record()["logger"]


def test_near_the_end_of_the_stack_each_line_is_valid(written):
    def deeper(left):
        try:
            get_logger("any").info("deep", left=left, held=[{"a": [1]}])
        except RecursionError:
            # There is no room for the call itself.
            return
        deeper(left + 1)

    deeper(0)
    assert len(written.records()) > 100


def test_much_that_will_be_cut_costs_little(written):
    began = time.process_time()
    get_logger("any").info("many", docs=["y" * 1_000_000] * 200, token=secrets.token_hex())
    get_logger("any").info("one", a=1, doc="password=x " * 500_000)
    assert time.process_time() - began < 2
    many, one = written.records()
    assert all(len(line) <= Settings().log_max_bytes for line in written.stream.getvalue().splitlines())
    assert one["doc"].startswith("password=*** ")
    assert "[cut: 1,000,000 characters]" in json.dumps(many, ensure_ascii=False)


def test_a_short_value_beside_a_long_one_is_whole(written):
    get_logger("any").info("x" * 2_000_000, doc="y" * 2_000_000, note="z" * 100, last={"a": "b" * 3000})
    record = written.record()
    assert record["note"] == "z" * 100
    assert "[cut: " in record["doc"]
    # No part of it: that might be half of a secret.
    assert record["last"] == {"a": "… [cut: 3,000 characters]"}


def test_what_is_left_out_says_so():
    assert "nested too deep" in json.dumps(plain(deep(50)))
    assert "holds itself" in json.dumps(plain(holding_itself()))
    assert "more" in json.dumps(plain(doubling()))
    assert "characters]" in plain("x" * 3_000_000)
