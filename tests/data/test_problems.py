import pytest

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.problems import (
    error,
    problem_dicts,
    problem_lines,
    raise_on_errors,
    warning,
)

FOUND = [
    warning("odd", "looks odd"),
    *(error("broken", f"part {i}", file=f"{i}.png", fix="mend it") for i in range(5)),
]


def test_lines_put_errors_first_and_group_files():
    assert problem_lines(FOUND, per_group=2) == [
        "error: broken (5 times)",
        "  0.png: part 0",
        "  1.png: part 1",
        "  ... and 3 more",
        "  fix: mend it",
        "warning: odd",
        "  looks odd",
    ]
    assert problem_lines([]) == []


def test_dicts_keep_every_file():
    plain = problem_dicts(FOUND)
    assert len(plain) == 6
    assert plain[1] == {
        "severity": "error",
        "code": "broken",
        "message": "part 0",
        "file": "0.png",
        "fix": "mend it",
    }


def test_raising():
    raise_on_errors(FOUND[:1], "somewhere")
    with pytest.raises(DataError, match="has 5 problems") as caught:
        raise_on_errors(FOUND, "somewhere")
    assert "odd" not in str(caught.value)
    assert "somewhere" in str(caught.value)
