"""Alignment and uniformity of the features of one layer, class by class and as means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import Any

from pixelcontrast.evaluation.separation import alignment_bounds


@dataclass(frozen=True, slots=True)
class ClassFeatures:
    """The features of one class. Without features everything but `count` is None."""

    count: int
    """|F_c|."""
    alignment: float | None = None
    """A_c, lower is better."""
    error: float | None = None
    """Its standard error; 0 where all pairs were measured."""
    resultant: float | None = None
    """R_c, the length of the mean of the unit vectors."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds of A_c that hold without sampling."""
        return None if self.resultant is None else alignment_bounds(self.resultant)

    @property
    def squared(self) -> float | None:
        """The mean squared distance 2 (1 - R^2), exact."""
        return None if self.resultant is None else 2 * max(0.0, 1 - self.resultant**2)


@dataclass(frozen=True, slots=True)
class FeatureScores:
    """Alignment and uniformity of the features of one layer.

    A score that is not defined (U of a single class) is NaN, and None in `to_dict`.
    """

    layer: str
    """Which features. A and U of layers of different width do not compare."""
    width: int
    """F."""
    classes: tuple[ClassFeatures, ...]
    similarity: tuple[tuple[float | None, ...], ...]
    """(C, C) cosines of class centres; None where a class has no centre."""
    uniformity: float
    neighbourhood: Mapping[int, float]
    """U_l by l; an l that needs more classes than there are is missing."""
    min_count: int = 1
    """Classes with fewer features are left out of all means."""
    dropped: int = 0
    """Features without a direction: zero or not finite."""

    @property
    def used(self) -> tuple[int, ...]:
        """Classes that enter the means."""
        return tuple(c for c, one in enumerate(self.classes) if one.alignment is not None)

    @property
    def undirected(self) -> tuple[int, ...]:
        """Classes whose features cancel out: in A, but not in U and U_l."""
        return tuple(c for c in self.used if self.similarity[c][c] is None)

    @property
    def single(self) -> tuple[int, ...]:
        """Classes with a single feature: their A_c is 0 and flatters A."""
        return tuple(c for c in self.used if self.classes[c].count == 1)

    @property
    def excluded(self) -> tuple[int, ...]:
        """Classes with features, but fewer than `min_count`."""
        return tuple(c for c, one in enumerate(self.classes) if 0 < one.count < self.min_count)

    @property
    def alignment(self) -> float:
        """A."""
        return self._mean([one.alignment for one in self.classes])

    @property
    def alignment_error(self) -> float:
        """Standard error of A; the classes are sampled independently."""
        errors = [one.error for one in self.classes if one.error is not None]
        return sqrt(sum(error**2 for error in errors)) / len(errors) if errors else nan

    @property
    def alignment_bounds(self) -> tuple[float, float]:
        """Bounds of A that hold without sampling."""
        bounds = [one.bounds for one in self.classes]
        low, high = (self._mean([b and b[side] for b in bounds]) for side in (0, 1))
        return low, high

    @property
    def alignment_squared(self) -> float:
        """A with squared distances, exact."""
        return self._mean([one.squared for one in self.classes])

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Everything as plain values for JSON.

        Args:
            names: of the C classes.
        """
        if len(names) != len(self.classes):
            raise ValueError(f"{len(names)} names for {len(self.classes)} classes")
        return {
            "layer": self.layer,
            "width": self.width,
            "alignment": _plain(self.alignment),
            "alignment_error": _plain(self.alignment_error),
            "alignment_bounds": [_plain(bound) for bound in self.alignment_bounds],
            "alignment_squared": _plain(self.alignment_squared),
            "uniformity": _plain(self.uniformity),
            "neighbourhood_uniformity": {
                str(n): _plain(value) for n, value in self.neighbourhood.items()
            },
            "min_count": self.min_count,
            "dropped": self.dropped,
            "single": [names[c] for c in self.single],
            "excluded": [names[c] for c in self.excluded],
            "undirected": [names[c] for c in self.undirected],
            "classes": [
                {
                    "name": name,
                    "count": one.count,
                    "alignment": one.alignment,
                    "error": one.error,
                    "resultant": one.resultant,
                }
                for name, one in zip(names, self.classes, strict=True)
            ],
            "similarity": [list(row) for row in self.similarity],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureScores:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of `to_dict`.
        """
        classes = tuple(
            ClassFeatures(
                int(row["count"]), *(_number(row[k]) for k in ("alignment", "error", "resultant"))
            )
            for row in values["classes"]
        )
        similarity = tuple(tuple(map(_number, row)) for row in values["similarity"])
        if len(similarity) != len(classes) or any(len(r) != len(classes) for r in similarity):
            raise ValueError("'similarity' must have one row and one column a class")
        stored = values["neighbourhood_uniformity"]
        return cls(
            layer=str(values["layer"]),
            width=int(values["width"]),
            classes=classes,
            similarity=similarity,
            uniformity=_or_nan(values["uniformity"]),
            neighbourhood={int(n): _or_nan(value) for n, value in stored.items()},
            min_count=int(values["min_count"]),
            dropped=int(values["dropped"]),
        )

    def line(self) -> str:
        """One line of text for the terminal."""
        low, high = self.alignment_bounds
        near = "".join(f", U_{n} {_shown(value)}" for n, value in self.neighbourhood.items())
        return (
            f"{self.layer} (width {self.width}): A {_shown(self.alignment)} "
            f"± {_shown(self.alignment_error)} (within {_shown(low)} to {_shown(high)}), "
            f"U {_shown(self.uniformity)}{near}"
        )

    @staticmethod
    def _mean(values: Sequence[float | None]) -> float:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else nan


def _plain(value: float) -> float | None:
    return value if isfinite(value) else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _or_nan(value: Any) -> float:
    return nan if value is None else float(value)


def _shown(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else "-"
