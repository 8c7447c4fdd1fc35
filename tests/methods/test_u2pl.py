from tests.methods.tester import MethodTester

EMBEDDING = {"dim": 8, "layers": 2, "hidden": 16, "kernel": 3, "normalise": False}
OPTIONS = {
    "embedding": EMBEDDING,
    "anchors": 32,
    "negatives": 16,
    "queue": 300,
    "key_cap": 100,
    "supervised_epochs": 0,
    "min_probability": 0.1,
}


class TestU2PL(MethodTester):
    name = "u2pl"
    options = OPTIONS
    may_rise = ("unsupervised", "contrast")

    def test_two_processes_equal_one(self):
        # A teacher in training mode normalises by its share of the batch where batch norm is not
        # synchronised, as on CPUs.
        super(TestU2PL, SharedStatistics()).test_two_processes_equal_one()


class SharedStatistics(TestU2PL):
    __test__ = False
    options = {**OPTIONS, "teacher": {"buffers": "copy"}}
