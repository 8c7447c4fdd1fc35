"""What a prediction is worth: confusion counts, scores, inference protocols."""

from pixelcontrast.evaluation.confusion import ConfusionMatrix
from pixelcontrast.evaluation.evaluate import Evaluation, ImageScore, OnImage, evaluate
from pixelcontrast.evaluation.inference import (
    InferenceConfig,
    SegModel,
    predict_labels,
    predict_probabilities,
)
from pixelcontrast.evaluation.scores import SegScores

__all__ = [
    "ConfusionMatrix",
    "Evaluation",
    "ImageScore",
    "InferenceConfig",
    "OnImage",
    "SegModel",
    "SegScores",
    "evaluate",
    "predict_labels",
    "predict_probabilities",
]
