import pytest

u2pl = pytest.importorskip("benchmarks.u2pl")


def test_both_forms_compute_the_same_loss():
    setting = u2pl.SETTINGS["quick"]
    found = {}
    for name, kind in u2pl.KINDS.items():
        side, scene = kind(setting), u2pl.Scene(setting)
        rounds = [u2pl.one_round(side, scene) for _ in range(4)]
        found[name] = (sum(loss for *_, loss in rounds) / 4, scene.student.grad.norm().item())
    # They draw other anchors and keys.
    assert found["batched"] == pytest.approx(found["loop"], rel=0.05)
