"""
Switches on OpenTelemetry's instrumentations in a Python process of a job, within the trace of the job's run.

Python runs this by itself when it starts, in whatever interpreter the job uses: it may find OpenTelemetry there, but
not the package that it is a part of. `opentelemetry-instrument` does the same and begins a trace of its own, for
OpenTelemetry takes no parent from the environment.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  (pathlib is not loaded yet)
_FLUSHED_WITHIN_S = 2.0
# Traces only, unless asked for more, and by the protocol that the run itself is sent by; what is set stays.
_DEFAULTS = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
}


def _instrument() -> None:
    from opentelemetry import trace
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    given = dict(os.environ)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # What is started meanwhile, and asks a tool for something, is no part of the job.
    os.environ["PYTHONPATH"] = _without_us(given.get("PYTHONPATH", ""))
    try:
        initialize()
    finally:
        for name in ("PYTHONPATH", *_DEFAULTS):
            if name in given:
                os.environ[name] = given[name]
            else:
                os.environ.pop(name, None)
    _go_on_in_trace()
    _flush_at_exit(trace.get_tracer_provider())


def _go_on_in_trace() -> None:
    from opentelemetry import context, trace
    from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name.lower(): os.environ[name] for name in ("TRACEPARENT", "TRACESTATE") if name in os.environ}
    of_job = TraceContextTextMapPropagator().extract(carrier)

    def of_stage() -> Any:
        place = _stage()
        if place is None:
            return None
        sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        parent = trace.SpanContext(*place, is_remote=True, trace_flags=sampled)
        return trace.set_span_in_context(trace.NonRecordingSpan(parent), of_job)

    class OfJob(ContextVarsRuntimeContext):  # type: ignore[misc]  # untyped base
        """Where no span is open, as a thread begins, is the job's stage, or else its run."""

        def get_current(self) -> Any:
            return super().get_current() or of_stage() or of_job

    if type(getattr(context, "_RUNTIME_CONTEXT", None)) is ContextVarsRuntimeContext:
        context._RUNTIME_CONTEXT = OfJob()  # noqa: SLF001  (there is no other way for threads)
    else:
        context.attach(of_job)


def _stage() -> tuple[int, int] | None:
    """Return the trace and the span of the stage that is open, if the job has used any."""
    current_run = getattr(sys.modules.get("batch_observability.run"), "current_run", None)
    current = current_run() if current_run is not None else None
    if current is None or current.context is None or current.current_stage is None:
        return None
    return current.context.trace_id, current.current_stage.span_id


def _flush_at_exit(provider: Any) -> None:
    """Send what is left when the process ends, for so long at most; the provider itself would wait for minutes."""
    import atexit
    import threading

    if not hasattr(provider, "shutdown"):
        return
    atexit.unregister(provider.shutdown)

    def begin() -> None:
        # There are no new threads at exit (Python 3.12), and none of these in a forked child.
        leaving, done = threading.Event(), threading.Event()

        def flush() -> None:
            leaving.wait()
            provider.shutdown()
            done.set()

        threading.Thread(target=flush, name="batchobs-flush", daemon=True).start()
        state.update(leaving=leaving, done=done)

    def at_exit() -> None:
        state["leaving"].set()
        state["done"].wait(_FLUSHED_WITHIN_S)

    def in_child() -> None:
        begin()
        if "multiprocessing.util" in sys.modules:
            # Its forked children leave without atexit, and forget now what there is to do instead.
            util = sys.modules["multiprocessing.util"]
            util.register_after_fork(begin, lambda _: util.Finalize(None, at_exit, exitpriority=-1000))

    state: dict[str, threading.Event] = {}
    begin()
    atexit.register(at_exit)
    os.register_at_fork(after_in_child=in_child)


def _without_us(path: str) -> str:
    return os.pathsep.join(part for part in path.split(os.pathsep) if part != _HERE)


def _run_theirs() -> None:
    """Run the `sitecustomize` that would have run without us."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    sys.path[:] = [part for part in sys.path if part != _HERE]
    found = PathFinder.find_spec("sitecustomize", sys.path)
    if found is not None and found.loader is not None:
        sys.modules["sitecustomize"] = theirs = module_from_spec(found)
        found.loader.exec_module(theirs)


try:
    _instrument()
except Exception as error:
    reason = f"{type(error).__name__}: {error}"
    sys.stderr.write(f"batchobs: {sys.executable} runs uninstrumented ({reason}); see batchobs run --help\n")
_run_theirs()
