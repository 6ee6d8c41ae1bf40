"""The figures, each with its set-up and what was wanted, as one table."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_COLUMNS = (("figure", 31), ("set-up", 45), ("measured", 25), ("wanted", 9), ("against", 25))
_VERDICT_WIDTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. `against` is what the same run compares it with."""

    name: str
    setup: str
    measured: str
    wanted: str
    is_ok: bool
    against: str = ""


def at_most(
    limit: float,
    unit: str,
    *,
    name: str,
    setup: str,
    value: float,
    details: str = "",
    against: str = "",
) -> Figure:
    """A figure that should not be above `limit`."""
    return Figure(
        name=name,
        setup=setup,
        measured=_say(value, unit, details),
        wanted=f"≤ {limit:g} {unit}".strip(),
        against=against,
        is_ok=value <= limit,
    )


def at_least(
    limit: float, unit: str, *, name: str, setup: str, value: float, details: str = ""
) -> Figure:
    """A figure that should not be below `limit`."""
    return Figure(
        name=name,
        setup=setup,
        measured=_say(value, unit, details),
        wanted=f"≥ {limit:g} {unit}".strip(),
        is_ok=value >= limit,
    )


def median(values: Sequence[float]) -> float:
    """The value half of them do not exceed; nan where there is none."""
    return percentile(values, 50)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that `percent` of them do not exceed; nan where there is none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def spread(values: Sequence[float], *, factor: float = 1.0) -> str:
    """Median, p95 and count in words; `factor` brings the values to the figure's unit."""
    middle, high = median(values) * factor, percentile(values, 95) * factor
    return f"median {number(middle)}, p95 {number(high)}, n={len(values)}"


def number(value: float) -> str:
    """Three digits, as far as they matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def render_table(figures: Sequence[Figure]) -> str:
    """All figures, one row each."""
    rule = "  ".join("─" * width for _, width in _COLUMNS) + "  " + "─" * _VERDICT_WIDTH
    head = _render_row([title for title, _ in _COLUMNS], "ok?")
    return "\n".join([head, rule, *(_render_figure(figure) for figure in figures)])


def _render_figure(figure: Figure) -> str:
    cells = [figure.name, figure.setup, figure.measured, figure.wanted, figure.against]
    return _render_row(cells, "ok" if figure.is_ok else "MISSED")


def _render_row(cells: Sequence[str], verdict: str) -> str:
    columns = [
        textwrap.wrap(cell, width) or [""] for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
    ]
    columns.append([verdict])
    widths = [*(width for _, width in _COLUMNS), _VERDICT_WIDTH]
    height = max(len(column) for column in columns)
    lines = (
        [column[line] if line < len(column) else "" for column in columns] for line in range(height)
    )
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _say(value: float, unit: str, details: str) -> str:
    said = f"{number(value)} {unit}".strip()
    return f"{said} ({details})" if details else said
