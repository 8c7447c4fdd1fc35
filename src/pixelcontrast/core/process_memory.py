"""Memory of this process as the Linux kernel counts it; None on systems that do not say."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def resident() -> int | None:
    """Bytes in main memory now."""
    return _field("VmRSS")


def peak() -> int | None:
    """The most bytes in main memory since the start, or since `reset_peak`."""
    return _field("VmHWM")


def reset_peak() -> int | None:
    """Let the peak begin anew; returns the bytes in main memory now.

    Memory that the C library keeps for reuse goes back to the system first: filled again, it
    would not count as growth.
    """
    with contextlib.suppress(OSError, AttributeError):  # only the GNU library has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return None
    return resident()


def peak_growth(work: Callable[[], object]) -> float:
    """MiB by which the peak rises above what is in main memory before, while `work` is called.

    Raises:
        OSError: the system does not say.
    """
    before = reset_peak()
    if before is None:
        raise OSError(f"the peak of the memory is not known: no {_RESET}")
    work()
    return ((peak() or before) - before) / 2**20


def _field(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(values[0]) * 1024 if values else None
