"""
Declare that a callable is a batch model, for a plain PythonOperator or under `@task`.

The declaration is a mark on a wrapper; nothing happens until Airflow runs the task. Called by hand, in a notebook or
a test, the function does what it did before.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, TypeVar, overload

from batch_observability.model import BatchModel
from batch_observability.objective import ModelError

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__batch_model__"
# Decorators around a callable; an object that has every attribute, such as a Mock, would have no end of them.
_MOST_WRAPPERS = 100


@overload
def batch_model(target: F, model: BatchModel) -> F: ...
@overload
def batch_model(target: BatchModel | None = None, model: F | None = None, **fields: Any) -> Callable[[F], F]: ...
def batch_model(target: Any = None, model: Any = None, **fields: Any) -> Any:
    """
    Mark a callable as a batch model. Works around a callable and as a decorator, for functions and coroutines.

        PythonOperator(task_id="score", python_callable=batch_model(score, MODEL))

        @task
        @batch_model(name="churn", owner="team-risk")
        def score(): ...

    Args:
        target: the callable, or the model when used as a decorator.
        model: the model.
        fields: the fields of a `BatchModel`, instead of a model.

    Raises:
        ModelError: if the model or its fields are wrong, or both are given.
    """
    if isinstance(target, BatchModel):
        target, model = model, target
    if fields and model is not None:
        raise ModelError(f"batch_model() got a model and also {', '.join(fields)}: write one or the other")
    if fields:
        model = _from_fields(fields)
    if not isinstance(model, BatchModel):
        raise ModelError(f"batch_model() got {model!r}: write batch_model(BatchModel(name=..., owner=...))")
    if target is None:
        return lambda function: _marked(function, model)
    return _marked(target, model)


def _from_fields(fields: dict[str, Any]) -> BatchModel:
    try:
        return BatchModel(**fields)
    except TypeError as error:
        problem = str(error).replace("BatchModel.__init__() ", "")
        known = ", ".join(f.name for f in dataclasses.fields(BatchModel))
        raise ModelError(f"batch_model() {problem}: write fields of a BatchModel, {known}") from None


def _marked(function: Any, model: BatchModel) -> Any:
    if not callable(function):
        raise ModelError(f"batch_model() got {function!r}: write it around a function")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)
    elif inspect.isgeneratorfunction(function):
        # Airflow exhausts a generator function; a plain one that returns a generator would never run.

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return (yield from function(*args, **kwargs))
    elif inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            async with aclosing(function(*args, **kwargs)) as values:
                async for value in values:
                    yield value
    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    setattr(wrapper, _MARK, model)
    return wrapper


def declared_model(function: Any) -> BatchModel | None:
    """Return the model that `batch_model` put on a callable, also below other decorators that keep `__wrapped__`."""
    for _ in range(_MOST_WRAPPERS):
        model = getattr(function, _MARK, None)
        if isinstance(model, BatchModel):
            return model
        partial = isinstance(function, functools.partial)
        function = function.func if partial else getattr(function, "__wrapped__", None)
        if function is None:
            break
    return None
