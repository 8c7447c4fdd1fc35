from typing import ClassVar

from tests.methods.tester import MethodTester

EMBEDDING = {"dim": 8, "hidden": 8, "variance_lr": 1.0}


class TestPRCL(MethodTester):
    name = "prcl"
    options: ClassVar[dict] = {
        "embedding": EMBEDDING,
        "num_anchors": 32,
        "num_negatives": 32,
        "confidence_threshold": 0.0,
        "image_threshold": 0.0,
        "teacher": {"buffers": "copy"},  # half a batch has other statistics of its own
    }
    may_rise = ("unsupervised",)
