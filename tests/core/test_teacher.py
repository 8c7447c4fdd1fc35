from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from pixelcontrast.core.teacher import Teacher


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))


def disturb(student: nn.Module) -> None:
    with torch.no_grad():
        for tensor in [*student.parameters(), *student.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
            else:
                tensor.add_(1)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("buffers", ["copy", "average", "own"])
def test_follows_the_definition(warmup, buffers):
    student = network()
    teacher = Teacher(student, decay=0.7, warmup=warmup, buffers=buffers)
    expected = {k: v.double() for k, v in student.state_dict().items()}
    start = copy.deepcopy(student.state_dict())
    names = {name for name, _ in student.named_parameters()}
    for step in range(6):
        disturb(student)
        teacher.update(student)
        decay = min(0.7, 1 - 1 / (step + 1)) if warmup else 0.7
        for key, value in student.state_dict().items():
            averaged = key in names or (buffers == "average" and value.is_floating_point())
            if averaged:
                expected[key] = decay * expected[key] + (1 - decay) * value
            elif buffers == "own":
                expected[key] = start[key].double()
            else:
                expected[key] = value.double()
    for key, value in teacher.module.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-6, atol=1e-6)


def test_first_update_copies_and_warmup_is_the_plain_mean():
    student = nn.Linear(1, 1, bias=False)
    teacher = Teacher(student, decay=0.99)
    seen = []
    for value in (5.0, 1.0, 3.0):
        nn.init.constant_(student.weight, value)
        teacher.update(student)
        seen.append(value)
        assert teacher.module.weight.item() == pytest.approx(sum(seen) / len(seen))


@pytest.mark.parametrize(("step", "decay"), [(0, 0), (1, 0.5), (9, 0.9), (98, 98 / 99), (99, 0.99)])
def test_decay_rises_to_its_limit(step, decay):
    student = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(student.weight)
    teacher = Teacher(student, decay=0.99)
    teacher.step = step
    nn.init.ones_(student.weight)
    teacher.update(student)
    assert teacher.module.weight.item() == pytest.approx(1 - decay, abs=1e-6)


def test_resume_is_exact():
    student = network()
    teacher = Teacher(student, decay=0.9)
    for _ in range(3):
        disturb(student)
        teacher.update(student)
    file = io.BytesIO()
    torch.save(teacher.state_dict(), file)
    file.seek(0)
    resumed = Teacher(network(), decay=0.9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.step == 3
    for _ in range(2):
        disturb(student)
        teacher.update(student)
        resumed.update(student)
    for a, b in zip(
        teacher.module.state_dict().values(), resumed.module.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_never_trained_and_always_evaluating():
    student = network()
    teacher = Teacher(student)
    parent = nn.ModuleList([student, teacher]).train()
    assert parent[0][2].training
    assert not any(m.training for m in teacher.module.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    before = copy.deepcopy(teacher.module.state_dict())
    image = torch.rand(2, 2, 4, 4)
    out = teacher(image)
    assert not out.requires_grad
    assert torch.equal(out, teacher(image))  # no dropout
    for key, value in teacher.module.state_dict().items():
        assert torch.equal(value, before[key])  # no batch statistics collected


def test_may_collect_its_own_statistics():
    teacher = Teacher(network(), buffers="own")
    teacher.module.train()
    nn.ModuleList([teacher]).train()
    teacher(torch.rand(2, 2, 4, 4) + 3)
    assert teacher.module[1].num_batches_tracked == 1


def test_refuses_another_network():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        Teacher(network(), buffers="average").update(nn.Sequential(nn.Conv2d(2, 3, 1)))
