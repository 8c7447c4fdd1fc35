from typing import ClassVar

from tests.methods.tester import MethodTester


class TestUniMatch(MethodTester):
    name = "unimatch"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("strong", "features")


class TestUniMatchV2(MethodTester):
    name = "unimatch_v2"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("strong",)
