"""What clusters are worth as classes: the assignment of clusters to classes, then scores.

Counts come from all labelled pixels of the data set, in one table, before anything is matched.

Letters: C classes, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pixelcontrast.core.assignment import assign_pairs
from pixelcontrast.core.errors import unknown_name
from pixelcontrast.evaluation.confusion import PairCounts
from pixelcontrast.evaluation.scores import known_mean, percent, ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

MatchRule = Literal["hungarian", "majority"]
"""One-to-one, or every cluster for itself. Their scores must never stand in one table."""


class ClusterCounts(PairCounts):
    """Running counts (C, K) of labelled pixels by true class and by cluster.

    Args:
        num_classes: C.
        num_clusters: K, any number.
        ignore_index: label that is left out; None where every pixel has a class.
        device: where the counts live; the device of the predictions.
    """

    def __init__(
        self,
        num_classes: int,
        num_clusters: int,
        ignore_index: int | None = 255,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(num_classes, num_clusters, ignore_index, device)

    def match(self, rule: MatchRule = "hungarian") -> MatchedScores:
        """Scores after the clusters have been given their classes; see `match_clusters`."""
        counts = self.counts.cpu()
        class_of_cluster = match_clusters(counts, rule)
        return MatchedScores(rule, class_of_cluster, _columns_by_class(counts, class_of_cluster))


def match_clusters(counts_CK: Tensor, rule: MatchRule = "hungarian") -> tuple[int, ...]:
    """The class of each of the K clusters, -1 for none.

    * `hungarian`: one-to-one with the most pixels in agreement (Kuhn 1955). With K > C some
      clusters, with K < C some classes stay without a partner.
    * `majority`: the most frequent class of each cluster, so many clusters may share one; more
      clusters then score better. A cluster without labelled pixels has none.

    Args:
        counts_CK: (C, K) pixels of each class in each cluster.
        rule: one of the two.

    Raises:
        ConfigError: there is no such rule.
    """
    counts = counts_CK.cpu()
    if rule == "majority":
        best, owner = counts.max(dim=0)
        return tuple(torch.where(best > 0, owner, -1).tolist())
    if rule != "hungarian":
        raise unknown_name("matching rule", rule, ["hungarian", "majority"])
    classes, clusters = assign_pairs(counts, maximise=True)
    owners = torch.full((counts.shape[1],), -1)
    owners[clusters] = classes
    return tuple(owners.tolist())


@dataclass(frozen=True, slots=True)
class GroupScores:
    """Scores of some of the classes."""

    accuracy: float | None
    """Share of the pixels of these classes that are right."""
    miou: float | None


@dataclass(frozen=True, slots=True, eq=False)
class MatchedScores:
    """Data-set-level scores of clusters that have been given classes.

    Pixels of a cluster without a class are errors: they count in the size of their true class. A
    score that no pixel supports is None. Values are shares, not percent.
    """

    rule: MatchRule
    class_of_cluster: tuple[int, ...]
    """(K,) class of each cluster, -1 for none."""
    confusion: Tensor
    """(C, C + 1) int64: true classes by predicted ones; last column: clusters without a class."""

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of the labelled pixels that are right."""
        return _share(self._hits.sum(), self.confusion.sum())

    @property
    def iou(self) -> tuple[float | None, ...]:
        """Intersection over union of each class; None for one neither true nor predicted."""
        return ratios(self._hits, self._unions)

    @property
    def recall(self) -> tuple[float | None, ...]:
        """Share of each class's pixels that are found."""
        return ratios(self._hits, self.confusion.sum(dim=1))

    @property
    def miou(self) -> float | None:
        """Mean of the IoUs that exist."""
        return known_mean(self.iou)

    @property
    def without_cluster(self) -> tuple[int, ...]:
        """Classes that no cluster stands for."""
        return tuple(sorted(set(range(len(self.confusion))) - set(self.class_of_cluster)))

    def group(self, classes: Sequence[int], *, cropped: bool = False) -> GroupScores:
        """Scores of some classes, such as things or stuff, after the matching of all.

        Args:
            classes: of the group.
            cropped: look at the pixels of these classes that were predicted as one of them, which
                forgives every confusion with another group: higher, and for comparison with tables
                made so. Otherwise the scores are those of the whole table.
        """
        chosen = list(classes)
        if cropped:
            inner = torch.zeros(len(chosen), len(chosen) + 1, dtype=torch.int64)
            inner[:, :-1] = self.confusion[chosen][:, chosen]
            part = MatchedScores(self.rule, tuple(range(len(chosen))), inner)
            return GroupScores(part.pixel_accuracy, part.miou)
        hits = self._hits[chosen].sum()
        iou = self.iou
        return GroupScores(
            _share(hits, self.confusion[chosen].sum()), known_mean([iou[c] for c in chosen])
        )

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Everything as plain values for JSON; shares, not percent.

        Args:
            names: of the C classes.
        """
        columns = (self.iou, self.recall, self.confusion.sum(dim=1).tolist())
        return {
            "rule": self.rule,
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "class_of_cluster": list(self.class_of_cluster),
            "classes": [
                {"name": name, "iou": iou, "recall": recall, "pixels": pixels}
                for name, iou, recall, pixels in zip(names, *columns, strict=True)
            ],
            "without_cluster": [names[c] for c in self.without_cluster],
            "confusion": self.confusion.tolist(),
        }

    def table(self, names: Sequence[str]) -> str:
        """A plain text table in percent: one line a class, then the means.

        Args:
            names: of the C classes.
        """
        width = max(len("mean"), *(len(name) for name in names))
        clusters: dict[int, list[str]] = {}
        for cluster, owner in enumerate(self.class_of_cluster):
            clusters.setdefault(owner, []).append(str(cluster))
        head = f"{'class':<{width}}  {'IoU':>6}  {'recall':>6}  clusters"
        lines = [f"clusters matched to classes: {self.rule}", head, "-" * len(head)]
        lines += [
            f"{name:<{width}}  {percent(iou):>6}  {percent(recall):>6}  "
            + " ".join(clusters.get(c, ["-"]))
            for c, (name, iou, recall) in enumerate(zip(names, self.iou, self.recall, strict=True))
        ]
        lines += [
            f"{'mean':<{width}}  {percent(self.miou):>6}",
            f"pixel accuracy {percent(self.pixel_accuracy)}",
        ]
        return "\n".join(lines)

    @property
    def _hits(self) -> Tensor:
        return self.confusion.diagonal()

    @property
    def _unions(self) -> Tensor:
        predicted = self.confusion[:, :-1].sum(dim=0)
        return self.confusion.sum(dim=1) + predicted - self._hits


def _columns_by_class(counts_CK: Tensor, class_of_cluster: Sequence[int]) -> Tensor:
    """(C, C + 1): the columns of clusters added up by class, those without one at the end."""
    classes = len(counts_CK)
    column = torch.tensor(class_of_cluster)
    column = torch.where(column < 0, classes, column)
    table = counts_CK.new_zeros(classes, classes + 1)
    return table.index_add_(1, column, counts_CK)


def _share(part: Tensor, whole: Tensor) -> float | None:
    return ratios(part[None], whole[None])[0]
