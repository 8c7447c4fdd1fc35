from typing import ClassVar

from tests.methods.tester import MethodTester


class TestMeanTeacher(MethodTester):
    name = "mean_teacher"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("consistency",)
