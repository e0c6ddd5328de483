"""What `batch_model` marks, and that a marked callable is for its callers what it was before."""

from __future__ import annotations

import asyncio
import functools
import inspect

import pytest

from batch_observability import BatchModel, ModelError, batch_model
from batch_observability.declare import declared_model

MODEL = BatchModel("churn", owner="team-risk")
OTHER = BatchModel("other")


def score(day: str, *rest: int, limit: int = 10, **more: str) -> list:
    """Score a day."""
    return [day, rest, limit, more]


FORMS = {
    "batch_model(MODEL)(f)": batch_model(MODEL),
    "batch_model(f, MODEL)": lambda f: batch_model(f, MODEL),
    "batch_model(MODEL, f)": lambda f: batch_model(MODEL, f),
    "batch_model(f, model=MODEL)": lambda f: batch_model(f, model=MODEL),
    "batch_model(model=MODEL)": batch_model(model=MODEL),
    "batch_model(target=f, model=MODEL)": lambda f: batch_model(target=f, model=MODEL),
    "batch_model(name=..., owner=...)": batch_model(name="churn", owner="team-risk"),
    "batch_model(f, name=..., owner=...)": lambda f: batch_model(f, name="churn", owner="team-risk"),
}


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def declare(request):
    """One of the ways to declare."""
    return request.param


def test_all_forms_declare_the_same(declare):
    assert declared_model(declare(score)) == MODEL


def test_a_declared_function_is_called_as_before(declare):
    assert declare(score)("2013-02-01", 1, 2, limit=3, more="x") == ["2013-02-01", (1, 2), 3, {"more": "x"}]


def test_name_documentation_and_signature_are_kept(declare):
    """Airflow takes the task's id from the name, and its arguments from the signature."""
    marked = declare(score)
    assert (marked.__name__, marked.__qualname__, marked.__module__) == ("score", "score", __name__)
    assert marked.__doc__ == "Score a day."
    assert inspect.signature(marked) == inspect.signature(score)
    assert inspect.getsource(marked) == inspect.getsource(score)


def test_the_function_itself_is_not_changed(declare):
    declare(score)
    assert declared_model(score) is None


def test_a_coroutine_function_stays_one(declare):
    async def scored(day):
        await asyncio.sleep(0)
        return day

    marked = declare(scored)
    assert inspect.iscoroutinefunction(marked)
    assert asyncio.run(marked("2013-02-01")) == "2013-02-01"


def test_a_generator_function_stays_one(declare):
    """Airflow exhausts a generator function, and returns what a plain function returns: a generator that never ran."""

    def scored(day):
        yield day

    assert inspect.isgeneratorfunction(declare(scored))


def test_a_generator_is_sent_to_closed_and_returns_as_before(declare):
    def scored():
        said = []
        try:
            while (word := (yield len(said))) is not None:
                said.append(word)
        except KeyError as error:
            said.append(error.args[0])
            yield said
        return said

    generator = declare(scored)()
    assert [next(generator), generator.send("a"), generator.send("b")] == [0, 1, 2]
    with pytest.raises(StopIteration) as stopped:
        generator.send(None)
    assert stopped.value.value == ["a", "b"]
    thrown_into = declare(scored)()
    next(thrown_into)
    assert thrown_into.throw(KeyError("c")) == ["c"]


def test_an_asynchronous_generator_function_stays_one(declare):
    async def scored():
        yield 1

    assert inspect.isasyncgenfunction(declare(scored))


def test_errors_of_the_function_pass(declare):
    def broken():
        raise LookupError("no such day")

    async def broken_later():
        raise LookupError("no such day")

    with pytest.raises(LookupError, match="no such day"):
        declare(broken)()
    with pytest.raises(LookupError, match="no such day"):
        asyncio.run(declare(broken_later)())


def test_partials_methods_classes_and_callable_objects_may_be_declared(declare):
    class Scorer:
        def __init__(self, day="2013-02-01"):
            self.day = day

        def score(self):
            return self.day

        def __call__(self, limit):
            return self.day, limit

    marked = declare(functools.partial(score, "2013-02-01", limit=5))
    assert (marked(1), declared_model(marked)) == (["2013-02-01", (1,), 5, {}], MODEL)
    marked = declare(Scorer().score)
    assert (marked(), declared_model(marked)) == ("2013-02-01", MODEL)
    marked = declare(Scorer())
    assert (marked(5), declared_model(marked)) == (("2013-02-01", 5), MODEL)
    marked = declare(Scorer)
    assert (marked("x").day, declared_model(marked)) == ("x", MODEL)


def test_a_partial_of_a_coroutine_function_stays_one(declare):
    async def scored(day):
        return day

    marked = declare(functools.partial(scored, "2013-02-01"))
    assert inspect.iscoroutinefunction(marked)
    assert asyncio.run(marked()) == "2013-02-01"


def test_a_method_may_be_declared_in_its_class(declare):
    class Scorer:
        @declare
        def score(self, day):
            return self, day

    scorer = Scorer()
    assert scorer.score("x") == (scorer, "x")
    assert declared_model(scorer.score) == MODEL


def test_the_model_is_found_below_other_decorators():
    def logged(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    class Wrapper:
        """As Airflow's decorators: `__wrapped__`, and nothing else of the function."""

        def __init__(self, function):
            self.__wrapped__ = function

    marked = batch_model(MODEL)(score)
    assert declared_model(logged(logged(marked))) == MODEL
    assert declared_model(Wrapper(marked)) == MODEL
    assert declared_model(functools.partial(functools.partial(marked, "x"), limit=1)) == MODEL
    assert declared_model(Wrapper(functools.partial(logged(marked)))) == MODEL


def test_the_outermost_declaration_holds():
    assert declared_model(batch_model(OTHER)(batch_model(MODEL)(score))) == OTHER


@pytest.mark.parametrize("function", [None, score, functools.partial(score), print, int, object(), "score", MODEL])
def test_what_is_not_declared_has_no_model(function):
    assert declared_model(function) is None


def test_an_object_that_has_every_attribute_has_no_model():
    """A `Mock`, a dask `Delayed`, an RPC proxy as the callable of any task: Airflow asks for each at every parse."""

    class Anything:
        asked = 0

        def __getattr__(self, name):
            Anything.asked += 1
            if Anything.asked > 1000:
                raise RecursionError("endless")
            return Anything()

    assert declared_model(Anything()) is None


def test_the_model_is_found_below_a_callable_that_is_false():
    class Empty:
        def __init__(self, function):
            self.__wrapped__ = function

        def __len__(self):
            return 0

    class Outer:
        def __init__(self, function):
            self.__wrapped__ = function

    assert declared_model(Outer(Empty(batch_model(MODEL)(score)))) == MODEL


def problem(declaration) -> str:
    with pytest.raises(ModelError) as caught:
        declaration()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_declaration_without_a_model_says_how_to_write_one():
    for declaration in (
        batch_model,
        lambda: batch_model(score),
        lambda: batch_model(score, "churn"),
        lambda: batch_model(model={"name": "churn"}),
    ):
        assert "write batch_model(BatchModel(name=..., owner=...))" in problem(declaration)


def test_a_model_and_fields_are_one_too_many():
    for declaration in (
        lambda: batch_model(MODEL, owner="x", tier=1),
        lambda: batch_model(score, MODEL, owner="x", tier=1),
    ):
        assert problem(declaration) == "batch_model() got a model and also owner, tier: write one or the other"


def test_two_models_are_one_too_many():
    assert "write it around a function" in problem(lambda: batch_model(MODEL, model=OTHER))


@pytest.mark.parametrize("target", ["score", 7, object()])
def test_what_cannot_be_called_cannot_be_declared(target):
    assert problem(lambda: batch_model(target, MODEL)) == f"batch_model() got {target!r}: write it around a function"
    assert problem(lambda: batch_model(MODEL)(target)).endswith("write it around a function")


def test_a_wrong_field_is_told_as_of_a_model():
    assert problem(lambda: batch_model(name="a b", owner="x")).startswith("batch model name is 'a b': write")


def test_a_field_that_a_model_has_not_and_one_that_it_lacks_are_told():
    assert "'ovner'" in problem(lambda: batch_model(name="churn", ovner="x"))
    assert "'name'" in problem(lambda: batch_model(owner="x"))


@pytest.mark.parametrize("fields", [{"name": "churn", "ovner": "x"}, {"owner": "x"}])
def test_wrong_fields_are_told_with_a_remedy(fields):
    assert ": write " in problem(lambda: batch_model(**fields))
