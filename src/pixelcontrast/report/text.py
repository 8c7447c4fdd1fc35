"""Numbers as people read them."""

from __future__ import annotations

import math

MISSING = "–"  # noqa: RUF001
"""Stands where a value is unknown."""
TIMES = "×"  # noqa: RUF001


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in percent, without the sign."""
    return MISSING if share is None else f"{100 * share:.{digits}f}"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of two shares in percentage points, with its sign."""
    if difference is None:
        return MISSING
    value = round(100 * difference, digits)
    sign = "+" if value > 0 else "−" if value < 0 else "±"  # noqa: RUF001
    return f"{sign}{abs(value):.{digits}f}"


def duration(seconds: float | None) -> str:
    """A time span in at most two units."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def quantity(value: float | None) -> str:
    """A count with a unit prefix: 940, 12.3 k, 26.7 M."""
    if value is None:
        return MISSING
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == " k" else size)
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{value:,.0f}"


def figure(value: float) -> str:
    """A number on an axis: as short as its size allows."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 4 or size < -3:
        mantissa, exponent = f"{value:.1e}".split("e")
        if size >= 4 and size < 6:
            return f"{value / 1000:g}k"
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def joined(parts: list[str]) -> str:
    """A list in a sentence: a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"
