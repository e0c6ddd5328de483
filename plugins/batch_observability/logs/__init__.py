"""
Log lines that find their trace: one JSON object a line, with the run, the stage and the span that it belongs to.

The same in an Airflow task, a cron job, a notebook and a test:

    from batch_observability.logs import get_logger

    log = get_logger(__name__)
    log.info("model loaded", rows=48_210)

In Airflow, and under `batchobs run`, nothing has to be set up; elsewhere call `configure_logging()` once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch_observability.logs.bound import bind, unbind
    from batch_observability.logs.configure import configure_logging
    from batch_observability.logs.logger import Logger, get_logger

__all__ = ["Logger", "bind", "configure_logging", "get_logger", "unbind"]

# A task whose lines go Airflow's way needs a part of this room, and waits for what is loaded.
_DOORS = {
    "bind": "batch_observability.logs.bound",
    "unbind": "batch_observability.logs.bound",
    "configure_logging": "batch_observability.logs.configure",
    "Logger": "batch_observability.logs.logger",
    "get_logger": "batch_observability.logs.logger",
}


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_DOORS[name]), name)
    # For the next look-up.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
