"""What is wrong with a data set, as values that can be printed, grouped and saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pixelcontrast.core.errors import DataError

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one file, split or class.

    Errors make training refuse to start; warnings are printed.
    """

    severity: Severity
    code: str
    """Stable short name of the kind of problem, for example `size-mismatch`."""
    message: str
    file: str = ""
    """The file concerned, or empty when the finding is about the whole set."""
    fix: str = ""


def error(code: str, message: str, *, file: object = "", fix: str = "") -> Problem:
    """A problem that training must not start with."""
    return Problem("error", code, message, str(file), fix)


def warning(code: str, message: str, *, file: object = "", fix: str = "") -> Problem:
    """An oddity that the user should know of."""
    return Problem("warning", code, message, str(file), fix)


def problem_lines(problems: Iterable[Problem], *, per_group: int = 3) -> list[str]:
    """Text of `problems`, errors first, with many files of one kind shown once.

    Args:
        problems: the findings, in any order.
        per_group: how many findings of the same code are written out; the rest are counted.
    """
    groups: dict[tuple[Severity, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.severity, problem.code), []).append(problem)
    lines = []
    for (severity, code), found in sorted(groups.items(), key=lambda item: item[0][0]):
        times = f" ({len(found)} times)" if len(found) > 1 else ""
        lines.append(f"{severity}: {code}{times}")
        for problem in found[:per_group]:
            where = f"{problem.file}: " if problem.file else ""
            lines.append(f"  {where}{problem.message}")
        if len(found) > per_group:
            lines.append(f"  ... and {len(found) - per_group} more")
        fixes = dict.fromkeys(problem.fix for problem in found[:per_group] if problem.fix)
        lines.extend(f"  fix: {fix}" for fix in fixes)
    return lines


def problem_dicts(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """All findings as plain dictionaries, for JSON."""
    return [asdict(problem) for problem in problems]


def raise_on_errors(problems: Sequence[Problem], where: object) -> None:
    """Raise one `DataError` that holds every error of `problems`, if there is any."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        count = f"{len(errors)} problem{'s' if len(errors) > 1 else ''}"
        lines = "\n".join(problem_lines(errors))
        raise DataError(f"the data set has {count}\n{lines}", where=str(where))
