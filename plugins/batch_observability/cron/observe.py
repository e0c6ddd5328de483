"""
`observe`: a function, or a block, as a run of a batch model, in a script that nothing else observes.

Within a run, of `batchobs run`, of Airflow or of another `observe`, it is a stage: what is one run stays one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

from batch_observability.catalog.lookup import named
from batch_observability.catalog.merging import merged
from batch_observability.cron.job import Job
from batch_observability.cron.telling import Due, Trace, context_of, ends_with_us, settings_of
from batch_observability.guard import guarded, report
from batch_observability.model import BatchModel
from batch_observability.objective import ModelError
from batch_observability.observing import Observed, logs_end, logs_follow
from batch_observability.run import Run, Stage, current_run
from batch_observability.schema import Outcome

F = TypeVar("F", bound=Callable[..., Any])
_REMEDY = 'write observe("churn", owner="team-risk"), or give it a BatchModel'

# Two threads must not both find that there is no run yet.
_beginning = threading.RLock()


class observe:  # noqa: N801  (it is called as a function is)
    """
    Observe a function or a block as a run of a batch model; within a run, as a stage of that name.

    Decorator and context manager, for functions, coroutines and generators, `with` and `async with`:

        @observe("churn", owner="team-risk", sla=SLA(finish_within="20m"))
        def main(): ...

        with observe(MODEL) as run:
            run.rows(read=48_210)

    An exception that leaves it is the run's failure and goes on; `sys.exit(0)` is success, Ctrl-C cancels.

    Args:
        model: the model, or its name.
        fields: further fields of a `BatchModel`, with a name.

    Raises:
        ModelError: if the model or its fields are wrong.
    """

    def __init__(self, model: BatchModel | str, /, **fields: Any) -> None:
        self._model = _model(model, fields)
        # Blocks that are open, and those of this context: which one ends, where there are several.
        self._open: list[_Scope] = []
        self._here: ContextVar[tuple[_Scope, ...]] = ContextVar("batch_model_observed", default=())

    def __enter__(self) -> Run:
        scope = _Scope(self._model)
        run = scope.begin()
        self._open.append(scope)
        self._here.set((*self._here.get(), scope))
        return run

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        here = [scope for scope in self._here.get() if scope in self._open]
        # A generator may end in another context than it began in.
        scope = here.pop() if here else self._open[-1]
        self._open.remove(scope)
        self._here.set(tuple(here))
        scope.end(error)

    async def __aenter__(self) -> Run:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, tb)

    def __call__(self, function: F) -> F:
        """Return the function as one that is observed each time that it runs."""
        if not callable(function):
            raise ModelError(f"observe() is around {function!r}: write it around a function, or after with")
        wrapper: Any = _wrapped(function, self._model)
        return wrapper  # type: ignore[no-any-return]


def _model(model: Any, fields: dict[str, Any]) -> BatchModel:
    if isinstance(model, BatchModel):
        if fields:
            raise ModelError(f"observe() got a model and also {', '.join(fields)}: write one or the other")
        return model
    if not isinstance(model, str):
        raise ModelError(f"observe() got {model!r}: {_REMEDY}")
    known = [f.name for f in dataclasses.fields(BatchModel) if f.name != "name"]
    for name in fields:
        if name not in known:
            raise ModelError(f"observe() got {name!r}: write fields of a BatchModel, {', '.join(known)}")
    return BatchModel(name=model, **fields)


def _wrapped(function: Any, model: BatchModel) -> Any:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _Scope(model):
                return await function(*args, **kwargs)
    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _Scope(model):
                return (yield from function(*args, **kwargs))
    elif inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _Scope(model):
                async with aclosing(function(*args, **kwargs)) as values:
                    async for value in values:
                        yield value
    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _Scope(model):
                return function(*args, **kwargs)

    return wrapper


class _Scope:
    """One call, or one block: a run if there is none yet, else a stage."""

    def __init__(self, model: BatchModel) -> None:
        self._model = model
        self._observed: Observed | None = None
        self._stage: Stage | None = None

    def begin(self) -> Run:
        """Begin, and return the run that this is or is in; an inert one if it could not begin."""
        with _beginning:
            if current_run().context is None:
                self._observed = _begin(self._model)
                return current_run()
        run = current_run()
        self._stage = run.stage(self._model.name)
        self._stage.__enter__()
        return run

    def end(self, error: BaseException | None) -> None:
        """End as what left it says."""
        outcome = _outcome(error)
        failure = error if outcome is Outcome.FAILED else None
        if self._stage is not None:
            self._stage.__exit__(None, failure, None)
        # A forked child that comes here too has its own end.
        elif self._observed is not None and self._observed.is_open:
            _end(self._observed, outcome, failure)

    def __enter__(self) -> Run:
        return self.begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end(error)


def _outcome(error: BaseException | None) -> Outcome:
    # Who reads a generator may have had enough; and `sys.exit(None)` is `sys.exit(0)`.
    if error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code):
        return Outcome.SUCCESS
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return Outcome.CANCELLED
    return Outcome.FAILED


def _begin(model: BatchModel) -> Observed | None:
    try:
        settings = settings_of()
        model = merged(model, named(model.name, settings))
        context = context_of(Job(words=(), model=model), Trace(), 1, Due(model.as_text()))
        observed = Observed(context, settings, ends_with_process=ends_with_us(settings))
        logs_follow()
    except Exception as error:
        report("observe", error)
        return None
    return observed


@guarded(None)
def _end(observed: Observed, outcome: Outcome, error: BaseException | None) -> None:
    logs_end()
    told = observed.run.describe(error)
    if told is not None and isinstance(error, SystemExit):
        # As the same is told of a command.
        told["message"] = f"exit code {error.code}" if isinstance(error.code, int) else told["message"]
    observed.close("end", outcome=outcome.value, error=told, wait=observed.must_wait)
