"""Jobs under `batchobs run`, and what is told of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.cron.side_by_side import BATCHOBS
from tests.live import wait_until

COMMAND = BATCHOBS[:2]
TOLD_WITHIN_S = 30


def state() -> Path:
    return Path(os.environ["BATCHOBS_STATE_DIR"])


def start(*words: str, **how: Any) -> subprocess.Popen[bytes]:
    """Start `batchobs run` with options and a command."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **how}
    return subprocess.Popen([*COMMAND, *words], **how)


def run(*words: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `batchobs run` with options and a command to its end."""
    with start(*words, **how) as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finished(count: int = 1) -> list[dict[str, Any]]:
    """Return what was told of runs that have ended, once there are so many."""

    def ended() -> list[dict[str, Any]]:
        records = lines(state() / "logs" / "batch_models.jsonl")
        return [record for record in records if record["event"] == "batch model run finished"]

    wait_until(lambda: len(ended()) >= count, f"{count} runs are told", TOLD_WITHIN_S, ended)
    return ended()


def captured(job: str) -> list[dict[str, Any]]:
    """Return the log lines of a job whose run has been told: they come before that."""
    finished()
    return lines(state() / "logs" / "jobs" / f"{job}.jsonl")
