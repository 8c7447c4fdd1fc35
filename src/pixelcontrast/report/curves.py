"""Learning curves and training diagnostics of one or several runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pixelcontrast.report.chart import Chart, Series, Style, line_chart, smoothed, thinned
from pixelcontrast.report.class_charts import ClassRow, ClassSeries, Panel, small_charts
from pixelcontrast.report.groups import COLOURS, Group
from pixelcontrast.report.run import Line, Run, number
from pixelcontrast.report.words import NETWORKS, term_title

_STATS: dict[str, tuple[str, str]] = {
    "anchors": (
        "Anchor pixels per step",
        "How many pixels the contrast starts from. Near zero it does nothing: labels too few, "
        "crops too small, or the least number of pixels per class too high.",
    ),
    "anchor_classes": (
        "Classes among the anchors",
        "With a single class there is nothing to push away from. The closer to the number of "
        "classes, the better the rare ones are served.",
    ),
    "class_anchors": (
        "Class anchors per step",
        "Mean features of a class in an image, over all levels. About the number of classes in an "
        "image, times images and levels; near zero the contrast does nothing.",
    ),
    "hard_share": (
        "Share of hard anchors",
        "Anchors the network still gets wrong. It should fall as training goes on; at zero the "
        "contrast only sees easy pixels.",
    ),
    "unsure_share": (
        "Share of unsure pixels",
        "Pixels that the network is not sure of, from which anchors are drawn. It falls as the "
        "network learns; at zero no anchor is left.",
    ),
    "anchor_pixels": (
        "Pixels that may be anchors",
        "Pixels sure enough of their class to start a contrast from. Rises with the confidence of "
        "the network.",
    ),
    "negative_pixels": (
        "Pixels that may be negatives",
        "Unreliable pixels handed to the classes they are unlikely to be. It falls as the network "
        "becomes sure, and with the share of pixels called unreliable.",
    ),
    "entropy_threshold": (
        "Entropy between sure and unsure",
        "Pixels above are unsure, a fixed and falling share of all: it falls as the teacher "
        "becomes sure, and rises with the share that is called sure.",
    ),
    "contrast_classes": (
        "Classes that are contrasted",
        "Classes with both anchors and negatives in this step.",
    ),
    "negatives": (
        "Negatives per step",
        "How many pixels push the class anchors away: with boundary-aware selection only errors "
        "count, so the number falls as the network makes fewer of them.",
    ),
    "empty_negative_share": (
        "Share of anchors without a negative",
        "Such anchors are only pulled to their class and learn little. Rises as errors become "
        "rare; near one the contrast has nothing left to do.",
    ),
    "positive_similarity": (
        "Similarity within a class",
        "Mean cosine of anchors and their positives. It should rise towards 1.",
    ),
    "negative_similarity": (
        "Similarity between classes",
        "Mean cosine of anchors and pixels of other classes. It should fall towards 0 or below; "
        "the gap to the similarity within a class is what the contrast achieves.",
    ),
    "variance": (
        "Mean variance of pixel embeddings",
        "How unsure pixels are of their embedding, near one half at the start. Where it falls, "
        "pixels count more in the distribution of their class.",
    ),
    "negative_class_entropy": (
        "Spread of the negative classes",
        "Entropy of the choice of negative classes. At zero every class meets its nearest one "
        "alone, as global prototypes grow sure: raise method.sampling_min_variance.",
    ),
    "virtual_cosine": (
        "Virtual negatives and their prototypes",
        "Mean cosine. At 1 the virtual negatives are copies of the prototypes; with "
        "method.virtual_noise=exp-half-variance they differ.",
    ),
    "queue_fill": (
        "Fill of the pixel memory",
        "Share of the places of the class queues that hold a pixel. It should reach 1 early; if it "
        "stays low, rare classes offer too few pixels for queues of this length.",
    ),
    "region_fill": (
        "Fill of the region memory",
        "Share of the places for class regions that have been written. It levels off where all "
        "images have been seen once: most images do not show every class.",
    ),
    "rank_agreement": (
        "Share of pixels ranked alike",
        "Pixels of the distorted views that put their landmarks in the order of the plain view. "
        "It should rise; by chance it would be 1 / 24 with four landmarks.",
    ),
    "kept_share": (
        "Share of pixels with a trusted pseudo-label",
        "Of the unlabelled pixels. It rises as the network becomes sure. Near zero the unlabelled "
        "images teach nothing: the threshold is too high; near one from the start they teach "
        "mistakes as well.",
    ),
    "confidence": (
        "Confidence of the pseudo-labels",
        "Mean probability of the predicted class on unlabelled pixels. It rises; if it rises while "
        "the validation score falls, the network confirms its own mistakes.",
    ),
    "not_finite_share": (
        "Share of pixels whose scores are not finite",
        "They take no part. More than 0 means that the network that labels the images has broken "
        "down: lower the learning rate.",
    ),
    "pseudo_accuracy": (
        "Accuracy of trusted pseudo-labels",
        "Measured against masks that training never sees. It should stay above the pixel accuracy "
        "of the network itself; if it falls, raise the threshold.",
    ),
}
_STATS |= {
    f"{key}_view{view}": (f"{title}, view {view}", text)
    for view in (1, 2)
    for key, title, text in (
        (
            "cluster_entropy",
            "Evenness of the clusters",
            "Entropy of their sizes: 1 when all are equally large, 0 when one holds everything. A "
            "fall towards 0 is a collapse.",
        ),
        (
            "largest_cluster",
            "Share of the largest cluster",
            "Of all pixels. Above 0.9 the clusters have collapsed.",
        ),
        (
            "used_clusters",
            "Clusters that hold a pixel",
            "It should stay at the number of clusters; below half of it they collapse.",
        ),
        (
            "kmeans_loss",
            "Distance of pixels to their centroid",
            "Mean square. It falls as features gather around the centroids.",
        ),
    )
}
_STATS |= {
    "view_agreement": (
        "Pixels on which both views agree",
        "After the best renaming of the clusters. It should rise: clusters that depend on colour "
        "or place cannot agree. Without any label it is the best sign of progress.",
    ),
    "clusters_kept": (
        "Pixels that keep their cluster",
        "From one epoch to the next, after the best renaming. It rises as the clusters settle.",
    ),
}
_CLASS_STATS: dict[str, tuple[str, str]] = {
    "anchors_per_class": (
        "Anchors of each class",
        "Per step. A class that stays at zero takes no part: it is rare, or too small for the grid "
        "of the embedding.",
    ),
    "unsure_share_per_class": (
        "Share of unsure pixels of each class",
        "Should fall; the classes that stay high are those the network confuses.",
    ),
    "pseudo_share": (
        "Classes of the trusted pseudo-labels",
        "Share of each class among them. Compare it with the share of the class in the training "
        "labels: what falls to zero is being forgotten.",
    ),
    "pseudo_precision": (
        "How often trusted pseudo-labels are right",
        "Of the pixels given to the class; measured against masks that training never sees.",
    ),
}
_SIMILARITIES = {"positive_similarity": "within a class", "negative_similarity": "between classes"}
_FROM_ZERO = {"anchors", "anchor_classes", "class_anchors", "negatives", "queue_fill"}
_ONLY_ABOVE_ZERO = {"not_finite_share"}
"""What is not worth a chart while all is well."""
_OTHER_STAT = "Logged by the method at each step."


def learning_curves(groups: Sequence[Group]) -> list[Chart]:
    """Validation mIoU, losses, learning rate and speed."""
    speed = _trained(groups, "images_per_second", "Training images per second", "", zero=True)
    charts = [_validation(groups), *_losses(groups), _rate(groups), speed]
    return [chart for chart in charts if chart is not None]


def diagnostic_curves(groups: Sequence[Group]) -> list[Chart]:
    """One chart for each logged statistic, with a sentence on how to read it."""
    names = _keys(groups, "stat/")
    order = list(_STATS)
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    charts: list[Chart | None] = []
    if sum(len(group.runs) for group in groups) == 1 and set(_SIMILARITIES) <= set(names):
        names = [name for name in names if name not in _SIMILARITIES]
        charts.append(_similarities(groups[0].runs[0]))
    for name in names:
        stage, _, own = name.rpartition("/")  # of an earlier stage of the run
        unknown = name.replace("_", " ").replace("/", ": "), _OTHER_STAT
        title, note = _STATS.get(own, unknown)
        title = f"{stage}: {title}" if stage and own in _STATS else title
        if own in _ONLY_ABOVE_ZERO and not _ever(groups, f"stat/{name}"):
            continue
        zero = own in _FROM_ZERO
        charts.append(_trained(groups, f"stat/{name}", title, note, zero=zero))
    return [chart for chart in charts if chart is not None]


def class_curves(groups: Sequence[Group]) -> list[Panel]:
    """One panel of small charts for each statistic that is logged class by class."""
    panels = []
    for name in _keys(groups, "stat/"):
        series = []
        for place, group, run in _runs(groups):
            style: Style = "pale" if place else "line"
            rows = rows_of(run.train, f"stat/{name}")
            series.append(ClassSeries(group.run_label(run), rows, group.colour, style))
        width = max((len(row) for line in series for _, row in line.rows), default=0)
        if not width:
            continue
        title, note = _CLASS_STATS.get(name, (name.replace("_", " "), _OTHER_STAT))
        known = groups[0].runs[0].classes
        names = known if len(known) == width else tuple(str(i + 1) for i in range(width))
        panels.append(small_charts(title, names, series, note=note))
    return panels


def rows_of(lines: Iterable[Line], key: str) -> list[ClassRow]:
    """(step, one value a class) of the lines that hold a list; None where a value is missing."""
    found = []
    for line in lines:
        step, values = number(line.get("step")), line.get(key)
        if step is not None and isinstance(values, list):
            found.append((step, tuple(map(number, values))))
    return found


def points_of(lines: Iterable[Line], key: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that have a finite value."""
    found = ((number(line.get("step")), number(line.get(key))) for line in lines)
    return [(step, value) for step, value in found if step is not None and value is not None]


def _validation(groups: Sequence[Group]) -> Chart | None:
    series = []
    single = sum(len(group.runs) for group in groups) == 1
    for place, group, run in _runs(groups):
        keys = [key for key in NETWORKS if points_of(run.val, key)]
        for key in keys:
            average = key != "miou"
            label = group.run_label(run)
            if single:
                label = NETWORKS[key]
            elif average:
                label += f", {NETWORKS[key]}"
            points = points_of(run.val, key)
            best = max(points, key=lambda point: point[1])
            series.append(
                Series(
                    label,
                    points,
                    "var(--s1)" if single and average else group.colour,
                    "dashed" if average and not single else "pale" if place else "line",
                    mark=best if len(points) > 1 else None,
                )
            )
    return line_chart(
        "Validation mean IoU, %",
        series,
        y_format=lambda value: f"{100 * value:g}",
        note="Rings mark the best step of each line. Higher is better.",
    )


def _losses(groups: Sequence[Group]) -> list[Chart | None]:
    terms = _keys(groups, "loss/")
    if sum(len(group.runs) for group in groups) > 1:
        charts = [_trained(groups, "loss", "Training loss", "The sum of all terms, smoothed.")]
        if len(terms) > 1:
            charts += [
                _trained(groups, f"loss/{t}", f"Loss term: {term_title(t)}", "") for t in terms
            ]
        return charts
    run = groups[0].runs[0]
    shown = [("total", "loss"), *((term_title(t), f"loss/{t}") for t in terms)]
    if len(terms) == 1:
        shown = shown[:1]
    series = []
    for i, (label, key) in enumerate(shown):
        points = points_of(run.train, key)
        colour = f"var(--s{i % COLOURS})"
        series.append(Series(label, thinned(points), colour, "raw"))
        series.append(Series(label, thinned(smoothed(points)), colour))
    note = "Smoothed; the pale lines are the logged values. What is minimised is the total."
    return [line_chart("Training loss", series, note=note)]


def _similarities(run: Run) -> Chart | None:
    series = [
        Series(label, thinned(smoothed(points_of(run.train, f"stat/{name}"))), f"var(--s{i})")
        for i, (name, label) in enumerate(_SIMILARITIES.items())
    ]
    note = (
        "Mean cosine of pixel pairs. The upper line should rise towards 1, the lower one fall "
        "towards 0 or below; the gap between them is what the contrast achieves."
    )
    return line_chart("Similarity of pixel pairs", series, note=note)


def _rate(groups: Sequence[Group]) -> Chart | None:
    return _lines(groups, "lr", "Learning rate", "", lambda points: thinned(points))


def _trained(
    groups: Sequence[Group], key: str, title: str, note: str, *, zero: bool = False
) -> Chart | None:
    return _lines(groups, key, title, note, lambda points: thinned(smoothed(points)), zero=zero)


def _lines(
    groups: Sequence[Group],
    key: str,
    title: str,
    note: str,
    change: Callable[[list[tuple[float, float]]], list[tuple[float, float]]],
    *,
    zero: bool = False,
) -> Chart | None:
    """One line a run; runs of a group share its colour, all but the first are pale."""
    series = []
    for place, group, run in _runs(groups):
        points = change(points_of(run.train, key))
        style: Style = "pale" if place else "line"
        series.append(Series(group.run_label(run), points, group.colour, style))
    return line_chart(title, series, note=note, from_zero=zero)


def _runs(groups: Sequence[Group]) -> list[tuple[int, Group, Run]]:
    """Every run with its place in its group."""
    return [(place, group, run) for group in groups for place, run in enumerate(group.runs)]


def _ever(groups: Sequence[Group], key: str) -> bool:
    """Whether a statistic was ever above zero."""
    return any(y > 0 for _, _, run in _runs(groups) for _, y in points_of(run.train, key))


def _keys(groups: Sequence[Group], prefix: str) -> list[str]:
    """Names after `prefix` in any training line, in order of appearance."""
    names: dict[str, None] = {}
    for _, _, run in _runs(groups):
        for line in run.train:
            names.update(dict.fromkeys(key for key in line if key.startswith(prefix)))
    return [name.removeprefix(prefix) for name in names]
