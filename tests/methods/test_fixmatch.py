from typing import ClassVar

from tests.methods.tester import MethodTester


class TestFixMatch(MethodTester):
    name = "fixmatch"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("strong",)
