"""
Draws a trace as it arrived as an SVG waterfall: the picture at the top of the README.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live.agent import Span

WIDTH, NAMES, ROW, TOP = 1000, 330, 22, 46
COLOURS = {
    "airflow.dag_run": "#8a8f98",
    "airflow.task": "#b4b9c2",
    "batch_model.run": "#632ca6",
    "batch_model.stage": "#a88ad0",
}
ERROR = "#d9363e"
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def waterfall(trace: list[Span], title: str) -> str:
    """Returns the SVG of a trace: a row for each span below its parent, on one time axis in seconds."""
    rows = list(_ordered(trace))
    end = max(span["start"] + span["duration"] for span in trace)
    # The DAG run may have been queued for long before its first task: its bar is cut at the left.
    begin = min(span["start"] for span in trace if span.get("parent_id"))
    begin -= (end - begin) // 20
    length = end - begin
    scale = (WIDTH - NAMES - 200) / length
    height = TOP + ROW * len(rows) + 14
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" {FONT}>',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff" stroke="#d7dae0"/>',
        f'<text x="14" y="26" font-size="14" font-weight="600" fill="#22252b">{escape(title)}</text>',
    ]
    for number, (depth, span) in enumerate(rows):
        y = TOP + ROW * number
        left = max(span["start"], begin)
        x = NAMES + (left - begin) * scale
        width = max((span["start"] + span["duration"] - left) * scale, 1.5)
        colour = ERROR if span.get("error") else COLOURS.get(span["name"], "#8a8f98")
        lines += [
            f'<text x="{14 + 16 * depth}" y="{y + 13}" fill="#22252b">{escape(_label(span))}</text>',
            f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="14" rx="2" fill="{colour}"/>',
            f'<text x="{x + width + 6:.1f}" y="{y + 13}" fill="#5a606b">{escape(_note(span))}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _ordered(trace: list[Span]) -> Iterator[tuple[int, Span]]:
    children = defaultdict(list)
    known = {span["span_id"] for span in trace}
    for span in sorted(trace, key=lambda span: span["start"]):
        parent = span.get("parent_id")
        children[parent if parent in known else None].append(span)

    def below(parent: int | None, depth: int) -> Iterator[tuple[int, Span]]:
        for span in children[parent]:
            yield depth, span
            yield from below(span["span_id"], depth + 1)

    return below(None, 0)


def _label(span: Span) -> str:
    if span["name"] == "batch_model.stage":
        return str(span["resource"])
    index = span.get("metrics", {}).get("airflow.task_instance.map_index", -1)
    return f"{span['name']}  {span['resource']}{f'[{index:.0f}]' if index >= 0 else ''}"


def _note(span: Span) -> str:
    seconds = f"{span['duration'] / 1e9:.2f} s"
    numbers = span.get("metrics", {})
    read, rejected = (numbers.get(f"batch_model.rows.{name}") for name in ("read", "rejected"))
    return seconds if read is None else f"{seconds}, {read:.0f} rows, {rejected:.0f} rejected"
