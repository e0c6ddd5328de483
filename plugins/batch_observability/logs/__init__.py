"""
Log lines that find their trace: one JSON object a line, with the run, the stage and the span that it belongs to.

The same in an Airflow task, a cron job, a notebook and a test:

    from batch_observability.logs import get_logger

    log = get_logger(__name__)
    log.info("model loaded", rows=48_210)

In Airflow, and under `batchobs run`, nothing has to be set up; elsewhere call `configure_logging()` once.
"""

from batch_observability.logs.bound import bind, unbind
from batch_observability.logs.configure import configure_logging
from batch_observability.logs.logger import Logger, get_logger

__all__ = ["Logger", "bind", "configure_logging", "get_logger", "unbind"]
