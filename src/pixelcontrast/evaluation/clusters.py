"""What clusters are worth where masks exist, with the protocol it was measured by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixelcontrast.evaluation.scores import percent

if TYPE_CHECKING:
    from pixelcontrast.evaluation.matching import MatchedScores
    from pixelcontrast.evaluation.scores import SegScores


@dataclass(frozen=True, slots=True)
class ClusterEvaluation:
    """Scores of clusters under both rules of matching, and of a linear probe."""

    protocol: str
    """How images were shown, which centroids classify, whose classes these are."""
    names: tuple[str, ...]
    """Of the C classes."""
    hungarian: MatchedScores
    majority: MatchedScores
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Classes that are scored together, such as things and stuff."""
    probe: SegScores | None = None
    """Of a linear classifier on frozen features, trained on masks; None where it was not."""

    @property
    def shown(self) -> MatchedScores:
        """The matching that pictures and tables of classes follow.

        One-to-one; with more clusters than classes, where that would leave clusters without a
        class, every cluster for itself.
        """
        many = len(self.hungarian.class_of_cluster) > len(self.hungarian.confusion)
        return self.majority if many else self.hungarian

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = {"protocol": self.protocol}
        for scores in (self.hungarian, self.majority):
            groups = {
                f"{name}_{kind}": {"miou": part.miou, "pixel_accuracy": part.accuracy}
                for name, classes in self.groups.items()
                for kind in ("full", "cropped")
                for part in (scores.group(classes, cropped=kind == "cropped"),)
            }
            values[scores.rule] = {**scores.to_dict(self.names), "groups": groups}
        values["probe"] = self.probe and {
            "miou": self.probe.miou,
            "pixel_accuracy": self.probe.pixel_accuracy,
        }
        return values

    def table(self) -> str:
        """Plain text: the protocol, a line a rule and group, then one a class."""
        lines = [f"protocol: {self.protocol}"]
        for scores in (self.hungarian, self.majority):
            lines.append(_line(scores.rule, scores.pixel_accuracy, scores.miou))
            for name, classes in self.groups.items():
                part = scores.group(classes)
                lines.append(_line(f"{scores.rule}, {name}", part.accuracy, part.miou))
        if self.probe is not None:
            lines.append(_line("linear probe", self.probe.pixel_accuracy, self.probe.miou))
        return "\n".join([*lines, self.shown.table(self.names)])


def _line(name: str, accuracy: float | None, miou: float | None) -> str:
    return f"{name}: pixel accuracy {percent(accuracy)}, mean IoU {percent(miou)}"
