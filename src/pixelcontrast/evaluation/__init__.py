"""What predictions and features are worth: confusion counts, scores, inference protocols."""

from pixelcontrast.evaluation.boundary import near_boundary
from pixelcontrast.evaluation.confusion import ConfusionMatrix
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
from pixelcontrast.evaluation.projection import principal_plane, tsne_plane
from pixelcontrast.evaluation.scores import SegScores
from pixelcontrast.evaluation.separation import (
    alignment_bounds,
    mean_distance,
    neighbourhood_uniformity,
    uniformity,
)

__all__ = [
    "BoundaryScores",
    "ClassFeatures",
    "ConfusionMatrix",
    "Evaluation",
    "FeatureConfig",
    "FeatureMeter",
    "FeatureScores",
    "ImageScore",
    "InferenceConfig",
    "InstanceMeter",
    "InstanceScores",
    "OnImage",
    "SegModel",
    "SegScores",
    "alignment_bounds",
    "evaluate",
    "mean_distance",
    "near_boundary",
    "neighbourhood_uniformity",
    "predict_labels",
    "predict_probabilities",
    "principal_plane",
    "tsne_plane",
    "uniformity",
]
