import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from tests.gloo import two_processes

from pixelcontrast.core.types import LossReport
from pixelcontrast.engine import callbacks
from pixelcontrast.engine.callbacks import (
    Journal,
    ProgressBar,
    StopSignals,
    _mean_over_processes,
)
from pixelcontrast.engine.folder import RunFolder


def trainer(step):
    return SimpleNamespace(global_step=step, is_global_zero=True, should_stop=False)


def test_lines_after_the_last_checkpoint_and_half_lines_are_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    rows = [{"kind": "train", "step": s, "seconds": s / 10} for s in range(1, 6)]
    folder.metrics.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"kind": "tr')
    journal = Journal(folder, every=1, images_per_step=4)
    journal.on_train_start(trainer(3), None)
    journal.write("val", 3, {"miou": 0.5})
    journal.teardown(trainer(3), None, "fit")
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[-1]["miou"] == 0.5
    assert lines[-1]["seconds"] >= 0.3


def log_one_step(folder, report):
    """The line of a step with this report, and the names TensorBoard knows afterwards."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    running = SimpleNamespace(
        global_step=1,
        is_global_zero=True,
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.5}])],
    )
    method = SimpleNamespace(latest=report, device=torch.device("cpu"))
    journal = Journal(folder, every=1, images_per_step=4)
    journal.on_train_start(SimpleNamespace(**{**vars(running), "global_step": 0}), method)
    journal.on_train_batch_end(running, method)
    journal.teardown(running, method, "fit")
    events = EventAccumulator(str(folder.root / "tensorboard"))
    events.Reload()
    return json.loads(folder.metrics.read_text()), set(events.Tags()["scalars"]), journal


def test_one_value_a_class_is_a_list_and_a_curve_a_class(tmp_path):
    folder = RunFolder(tmp_path)
    folder.update_record(dataset={"classes": ["road", "tree <b>"]})
    terms = {"ce": torch.tensor(0.25), "contrast": torch.tensor(0.5)}
    stats = {
        "anchors": torch.tensor(7),
        "share": 0.125,
        "anchors_per_class": torch.tensor([3, 4]),
        "similarity_per_class": torch.tensor([0.5, float("nan")]),
        "per_level": torch.tensor([1.0, 2.0, 3.0]),
    }
    line, names, journal = log_one_step(folder, LossReport(terms, stats))
    assert line["loss"] == 0.75
    assert line["loss/contrast"] == 0.5
    assert line["stat/anchors"] == 7.0
    assert line["stat/share"] == 0.125
    assert line["stat/anchors_per_class"] == [3.0, 4.0]
    assert line["stat/similarity_per_class"] == [0.5, None]
    assert line["stat/per_level"] == [1.0, 2.0, 3.0]
    assert {"train/stat/anchors", "train/stat/anchors_per_class/road"} <= names
    assert "train/stat/similarity_per_class/road" in names
    assert not any("similarity_per_class/tree" in name for name in names)
    assert "train/stat/per_level/2" in names
    assert not any(isinstance(value, list) for value in journal.last.values())


def test_a_line_costs_one_transfer_to_the_host(tmp_path, monkeypatch):
    transfers = []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: transfers.append(t.shape) or plain(t))
    for name in ("item", "__float__", "__bool__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, lambda *a, name=name: pytest.fail(name))
    stats = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0), "c": 4.0}
    report = LossReport({"ce": torch.tensor(1.0)}, stats)
    values = _mean_over_processes({**report.terms, **report.stats}, torch.device("cpu"))
    assert transfers == [(5,)]
    assert values == {"ce": 1.0, "a": [1.0, 2.0], "b": 3.0, "c": 4.0}


def _in_two_processes(rank):
    nan = float("nan")
    named = {
        "scalar": torch.tensor(float(rank)),
        "row": torch.tensor([[1.0, nan, nan], [3.0, 5.0, nan]][rank]),
    }
    return _mean_over_processes(named, torch.device("cpu"))


def test_a_class_is_averaged_over_the_processes_that_have_it():
    expected = {"scalar": 0.5, "row": [2.0, 5.0, None]}
    assert two_processes(_in_two_processes) == [expected, expected]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_handlers_come_back(number):
    before = signal.getsignal(number)
    stops, running = StopSignals(), trainer(5)
    stops.on_train_start(running, None)
    try:
        stops.on_train_batch_end(running)
        assert not running.should_stop
        os.kill(os.getpid(), number)
        stops.on_train_batch_end(running)
        assert running.should_stop
        assert stops.received == signal.Signals(number).name
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    finally:
        stops.teardown(running, None, "fit")
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("seconds", "total", "device", "told"),
    [
        (30.0, 1000, "cpu", "the 987 steps left take about 8.2 h"),
        (30.0, 100, "cpu", None),
        (30.0, 1000, "cuda", None),
    ],
)
def test_a_long_run_without_a_gpu_is_announced_once(
    monkeypatch, tmp_path, seconds, total, device, told
):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    console = Console(record=True, soft_wrap=True, file=(tmp_path / "out").open("w"))
    bar = ProgressBar(SimpleNamespace(last={}), console, total)
    method = SimpleNamespace(device=torch.device(device))
    bar.on_train_start(trainer(10), method)
    now[0] = 500.0  # the first step sets things up
    for batch in range(12):  # two batches a step
        bar.on_train_batch_end(trainer(10 + (batch + 1) // 2), method)
        now[0] += seconds / 2
    notes = [line for line in console.export_text().splitlines() if "note" in line]
    assert len(notes) == (told is not None)
    if told:
        assert told in notes[0]
        for name in ("train.steps", "model.encoder", "view.crop"):
            assert name in notes[0]
