from tests.methods.tester import MethodTester

OPTIONS = {"heads": {"dim": 8}}


class TestContextrast(MethodTester):
    name = "contextrast"
    options = OPTIONS
