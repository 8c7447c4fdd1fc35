"""What predictions and features are worth: confusion counts, scores, inference protocols."""

from pixelcontrast.evaluation.boundary import near_boundary
from pixelcontrast.evaluation.confusion import ConfusionMatrix, PairCounts
from pixelcontrast.evaluation.evaluate import (
    BoundaryScores,
    Evaluation,
    ImageScore,
    OnImage,
    evaluate,
)
from pixelcontrast.evaluation.feature_scores import ClassFeatures, FeatureScores
from pixelcontrast.evaluation.features import FeatureConfig, FeatureMeter
from pixelcontrast.evaluation.inference import (
    InferenceConfig,
    SegModel,
    predict_labels,
    predict_probabilities,
)
from pixelcontrast.evaluation.instances import InstanceMeter, InstanceScores
from pixelcontrast.evaluation.matching import (
    ClusterCounts,
    GroupScores,
    MatchedScores,
    MatchRule,
    match_clusters,
)
from pixelcontrast.evaluation.probe import LinearProbe
from pixelcontrast.evaluation.projection import principal_plane, tsne_plane
from pixelcontrast.evaluation.protocols import PROTOCOLS, Protocol, protocols_of
from pixelcontrast.evaluation.retrieval import Hit, NearestImages
from pixelcontrast.evaluation.scores import SegScores
from pixelcontrast.evaluation.separation import (
    alignment_bounds,
    mean_distance,
    neighbourhood_uniformity,
    uniformity,
)

__all__ = [
    "PROTOCOLS",
    "BoundaryScores",
    "ClassFeatures",
    "ClusterCounts",
    "ConfusionMatrix",
    "Evaluation",
    "FeatureConfig",
    "FeatureMeter",
    "FeatureScores",
    "GroupScores",
    "Hit",
    "ImageScore",
    "InferenceConfig",
    "InstanceMeter",
    "InstanceScores",
    "LinearProbe",
    "MatchRule",
    "MatchedScores",
    "NearestImages",
    "OnImage",
    "PairCounts",
    "Protocol",
    "SegModel",
    "SegScores",
    "alignment_bounds",
    "evaluate",
    "match_clusters",
    "mean_distance",
    "near_boundary",
    "neighbourhood_uniformity",
    "predict_labels",
    "predict_probabilities",
    "principal_plane",
    "protocols_of",
    "tsne_plane",
    "uniformity",
]
