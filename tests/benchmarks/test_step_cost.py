import json
import sys

import pytest
import torch

from benchmarks import step_cost
from pixelcontrast.memory import ClassQueue, RegionMemory

SMALL = (
    "data.workers=0",
    "data.labeled=null",
    "view.crop=[48, 64]",
    "model.encoder=test_resnet",
    "model.decoder_channels=16",
    "train.batch=4",
)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_method_is_compared_with_its_twin(monkeypatch, tmp_path, capsys, scenes):
    memory = {"supervised_scenes": (100.0, 0.0), "pico_memory_scenes": (120.0, 12.0)}
    monkeypatch.setattr(
        step_cost,
        "peak",
        lambda recipe, _: dict(zip(("peak", "stored"), memory[recipe], strict=True)),
    )
    out = tmp_path / "cost.json"
    out.write_text(json.dumps({"camvid_small": {"pico": {}}}))
    arguments = ["pico_memory", "--rounds", "2", "--batches", "1", "--out", str(out)]
    arguments += ["--data", str(scenes), "--override", *SMALL]
    monkeypatch.setattr(sys, "argv", ["step_cost.py", *arguments])
    step_cost.main()
    results = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == results["scenes"]
    assert results["camvid_small"] == {"pico": {}}
    assert results["scenes"]["supervised"]["time_overhead"] == 0
    mine = results["scenes"]["pico_memory"]
    assert mine["seconds"] > 0
    assert mine["time_bar"] == 0.3
    assert mine["memory_overhead"] == 0.08  # 12 of the 20 MiB are the stored embeddings


def test_memories_are_filled():
    memories = ClassQueue(3, 4, 5), RegionMemory(3, 4, 5)
    method = torch.nn.ModuleList([*memories, torch.nn.Linear(2, 2)])
    stored = step_cost.fill_memories(method)
    assert all(memory.keys().valid.all() for memory in memories)
    assert stored == 2 * 13 * 5 * 4
