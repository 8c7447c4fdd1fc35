import json
import os
import signal
from types import SimpleNamespace

import pytest

from pixelcontrast.engine.callbacks import Journal, StopSignals
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
