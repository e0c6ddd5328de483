"""Log lines from everywhere, each of which says which thread it is of, its number there, and its span."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import multiprocessing
import threading
import warnings

import structlog

from batch_observability import current_run
from batch_observability.logs import get_logger

FLOWS = {"main": 1, "thread": 4, "future": 4, "coroutine": 4, "fork": 2, "spawn": 2}
EACH = 5_900
LINES = EACH * sum(FLOWS.values())


def writers(log):
    """Every way to write a line."""
    return (
        lambda text, n: logging.getLogger("mine").info("%s", text, extra={"n": n, "target": "x"}),
        lambda text, n: structlog.get_logger("mine").info(text, n=n),
        lambda text, n: get_logger("mine").info(text, n=n),
        lambda text, n: log.info(text),
        lambda text, n: print(text),
        lambda text, n: warnings.warn(text, UserWarning, stacklevel=1),
    )


def lines(flow, log):
    """Write the lines of one flow, the second half in a stage within its stage; yields now and then."""
    ways = writers(log)
    with current_run().stage(flow) as outer:
        for number in range(EACH // 2):
            ways[number % len(ways)](f"{flow} {number} {outer.span_id}", number)
            if not number % 500:
                yield
        with current_run().stage(f"within {flow}") as inner:
            for number in range(EACH // 2, EACH):
                ways[number % len(ways)](f"{flow} {number} {inner.span_id}", number)
                if not number % 500:
                    yield


def write(flow, log=None):
    """Write the lines of one flow at once."""
    warnings.simplefilter("always")
    for _ in lines(flow, log or get_logger("mine")):
        pass


async def write_with_others(flow, log):
    """Write the lines of one flow, in turn with other tasks."""
    for _ in lines(flow, log):
        await asyncio.sleep(0)


async def write_all(log):
    """Write the lines of all coroutines."""
    names = [f"coroutine-{number}" for number in range(FLOWS["coroutine"])]
    await asyncio.gather(*(asyncio.create_task(write_with_others(name, log)) for name in names))


def write_everything(log):
    """Write all lines, from threads and processes at the same time."""
    warnings.simplefilter("always")
    with concurrent.futures.ThreadPoolExecutor(FLOWS["future"]) as pool:
        processes = processes_of("spawn")
        threads = [threading.Thread(target=write, args=(f"thread-{number}", log)) for number in range(FLOWS["thread"])]
        for thread in threads:
            thread.start()
        futures = [pool.submit(write, f"future-{number}", log) for number in range(FLOWS["future"])]
        # While threads are logging.
        processes += processes_of("fork")
        write("main-0", log)
        asyncio.run(write_all(log))
        for each in (*threads, *processes):
            each.join()
        for future in futures:
            future.result()
    return [process.exitcode for process in processes]


def processes_of(method):
    """Start the processes of one start method."""
    context = multiprocessing.get_context(method)
    started = [context.Process(target=write, args=(f"{method}-{number}",)) for number in range(FLOWS[method])]
    for process in started:
        process.start()
    return started
