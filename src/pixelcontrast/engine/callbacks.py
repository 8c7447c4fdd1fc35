"""What happens around the training steps: logs, progress, validation, checkpoints, clean stops."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pixelcontrast.core.distributed import all_reduce_sum, world_size
from pixelcontrast.core.errors import PixelContrastError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.methods.base import Method

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from lightning.pytorch import Trainer
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

    from pixelcontrast.engine.folder import RunFolder
    from pixelcontrast.evaluation import SegScores
    from pixelcontrast.evaluation.matching import MatchedScores

Scores = Mapping[str, "SegScores | MatchedScores"]
Value: TypeAlias = float | list[float | None]
"""What a line of the log holds under a name: a number, or one a class (None: not in this step)."""

_LONG_HOURS = 1.0
"""Runs that will take longer without a GPU are announced."""
_MEASURED_STEPS = 3
"""Steps after which that is known; the first one is not measured, it sets things up."""
_STEPS_BETWEEN_AGREEMENTS = 10
"""Several processes stop at the same step; asking in each one would make the GPUs wait."""


class StopSignals(Callback):
    """Makes Ctrl-C and SIGTERM stop after the current step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Take over the two signals, where this thread may."""
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the host program handles signals
                return

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Agree with the other processes and stop after this step."""
        stop = self.received is not None
        if world_size() > 1:
            if trainer.global_step % _STEPS_BETWEEN_AGREEMENTS:
                return
            flag = torch.tensor(float(stop), device=trainer.strategy.root_device)
            stop = bool(all_reduce_sum(flag).item())
        if stop:
            self.received = self.received or "another process"
            trainer.should_stop = True

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


class Journal(Callback):
    """Writes metrics.jsonl and TensorBoard events, on the first process only.

    A value is written every `every` optimiser steps: the loss terms and statistics of that step,
    averaged over processes, the learning rate and the images per second since the last line.
    Statistics with one value a class are lists in metrics.jsonl and one curve a class in
    TensorBoard.
    """

    def __init__(self, folder: RunFolder, every: int, images_per_step: int) -> None:
        self.folder = folder
        self.every = every
        self.images_per_step = images_per_step
        self.last: dict[str, float] = {}
        self._clock = time.perf_counter()
        self._clock_step = 0
        self._paused = 0.0
        self._started = time.perf_counter()
        self._board: SummaryWriter | None = None
        self._classes: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Drop lines a killed run wrote after its last checkpoint, then open the event file."""
        self._clock, self._clock_step = time.perf_counter(), trainer.global_step
        if trainer.is_global_zero:
            self._truncate(trainer.global_step)
            self._classes = self.folder.read_record().get("dataset", {}).get("classes", [])
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(
                str(self.folder.root / "tensorboard"), purge_step=trainer.global_step
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """One line every `every` optimiser steps."""
        step = trainer.global_step
        if step == self._clock_step or step % self.every or pl_module.latest is None:
            return
        terms, stats = pl_module.latest.terms, pl_module.latest.stats
        device = pl_module.device
        named: dict[str, Tensor | float] = {"loss": pl_module.latest.total.detach()}
        named |= {f"loss/{n}": v for n, v in terms.items()}
        named |= {f"stat/{n}": v for n, v in stats.items()}
        values = _mean_over_processes(named, device)
        elapsed = time.perf_counter() - self._clock - self._paused
        line: dict[str, Value] = {
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "images_per_second": (step - self._clock_step) * self.images_per_step / elapsed,
            **values,
        }
        if device.type == "cuda":
            line["memory_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
        self._clock, self._clock_step, self._paused = time.perf_counter(), step, 0.0
        self.write("train", step, line)

    def pause(self, seconds: float) -> None:
        """Leave time spent on something else than training out of the images per second."""
        self._paused += seconds

    def write(self, kind: str, step: int, values: Mapping[str, Value]) -> None:
        """Append one line and the same values to TensorBoard."""
        self.last.update({n: v for n, v in values.items() if not isinstance(v, list)})
        if self._board is None:
            return
        seconds = round(time.perf_counter() - self._started, 3)
        line = {"kind": kind, "step": step, "seconds": seconds, **values}
        try:
            with self.folder.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise PixelContrastError(
                f"cannot write the log: {error.strerror}",
                where=self.folder.metrics,
                fix="free disk space, then continue with --resume",
            ) from error
        for name, value in values.items():
            if not isinstance(value, list):
                self._board.add_scalar(f"{kind}/{name}", value, step)
                continue
            own = self._classes if len(self._classes) == len(value) else range(len(value))
            for part, number in zip(own, value, strict=True):
                if number is not None:
                    self._board.add_scalar(f"{kind}/{name}/{part}", number, step)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Close the event file."""
        if self._board is not None:
            self._board.close()

    def _truncate(self, step: int) -> None:
        if not self.folder.metrics.exists():
            return
        kept = []
        for text in self.folder.metrics.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the line a kill cut in half
                continue
            if line["step"] <= step:
                kept.append(text + "\n")
                self._started = time.perf_counter() - line["seconds"]
        with atomic_path(self.folder.metrics) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _mean_over_processes(
    named: Mapping[str, Tensor | float], device: torch.device
) -> dict[str, Value]:
    """Plain numbers of scalars and vectors, with one collective and one transfer for all of them.

    A vector's entry is the mean over the processes that have one.
    """
    parts = [torch.as_tensor(value, device=device).detach().float() for value in named.values()]
    flat = torch.cat([part.reshape(-1) for part in parts])
    known = torch.cat([part.reshape(-1).isfinite() | (part.ndim == 0) for part in parts])
    sums = all_reduce_sum(torch.stack([torch.where(known, flat, 0.0), known.float()]))
    numbers = iter((sums[0] / sums[1]).tolist())
    found: dict[str, Value] = {}
    for name, part in zip(named, parts, strict=True):
        if part.ndim == 0:
            found[name] = next(numbers)
        else:
            row = (next(numbers) for _ in range(part.numel()))
            found[name] = [number if isfinite(number) else None for number in row]
    return found


class Validation(Callback):
    """Scores the networks now and then, keeps the best, and saves what a resume needs.

    Args:
        folder: where checkpoints go.
        journal: where scores go.
        score: computes the scores of every predictor of the method, on all processes.
        save_model: writes one network alone, by its name among the predictors.
        validate_every: steps between scores; the last step is always scored.
        checkpoint_every: steps between checkpoints to resume from.
    """

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        score: Callable[[Method], Scores],
        save_model: Callable[[Method, str | None], None],
        *,
        validate_every: int,
        checkpoint_every: int,
    ) -> None:
        self.folder = folder
        self.journal = journal
        self.score = score
        self.save_model = save_model
        self.validate_every = validate_every
        self.checkpoint_every = checkpoint_every
        self.best: dict[str, Any] = {}
        self._done_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """A resumed run starts after the step it was saved at."""
        self._done_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """Validate and save when it is time, and always before the run ends."""
        step = trainer.global_step
        if step == self._done_step:  # inside an accumulated step
            return
        self._done_step = step
        finished = step >= trainer.max_steps
        stopping = trainer.should_stop
        started = time.perf_counter()
        if finished or (step % self.validate_every == 0 and not stopping):
            pl_module.finite.drain()
            self._validate(trainer, pl_module, step)
        if finished or stopping or step % self.checkpoint_every == 0:
            pl_module.finite.drain()
            self._save(trainer, self.folder.last)
        self.journal.pause(time.perf_counter() - started)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score."""
        self.best = dict(state_dict["best"])

    def _validate(self, trainer: Trainer, method: Method, step: int) -> None:
        scores = self.score(method)
        if not scores:  # nothing to score on
            self._keep(trainer, method, {"step": step, "miou": None, "which": None})
            return
        values: dict[str, float] = {}
        for name, result in scores.items():
            suffix = "" if name == "student" else f"_{name}"
            values[f"miou{suffix}"] = result.miou or 0.0
            values[f"pixel_accuracy{suffix}"] = result.pixel_accuracy or 0.0
        self.journal.write("val", step, values)
        which, miou = max(((n, s.miou or 0.0) for n, s in scores.items()), key=lambda pair: pair[1])
        # Choosing among clusterings by masks would be supervision: the newest one is kept.
        if not self.best or method.finds_clusters or miou > (self.best["miou"] or -1.0):
            self._keep(trainer, method, {"step": step, "miou": miou, "which": which})

    def _keep(self, trainer: Trainer, method: Method, best: dict[str, Any]) -> None:
        self.best = best
        self._save(trainer, self.folder.best)
        if trainer.is_global_zero:
            self.save_model(method, best["which"])
            self.folder.update_record(best=best)

    @staticmethod
    def _save(trainer: Trainer, path: Path) -> None:
        # Every process takes part in collecting the state; the first one writes the file.
        if not trainer.is_global_zero:
            trainer.save_checkpoint(path)
            return
        with atomic_path(path) as temporary:
            trainer.save_checkpoint(temporary)


class ProgressBar(Callback):
    """A line that moves on a terminal; plain lines now and then elsewhere."""

    def __init__(self, journal: Journal, console: Console, total: int) -> None:
        self.journal = journal
        self.console = console
        self.total = total
        self._bar: Progress | None = None
        self._task: Any = None
        self._printed = 0.0
        self._first = 0
        self._ends: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Open the bar on the first process."""
        self._first = trainer.global_step
        if trainer.is_global_zero and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self.console,
            )
            self._task = self._bar.add_task("train", total=self.total, values="")
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """Move the bar, or print a line every 20 seconds."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        if len(self._ends) < _MEASURED_STEPS and step == self._first + len(self._ends) + 1:
            self._ends.append(time.monotonic())
            if len(self._ends) == _MEASURED_STEPS and pl_module.device.type == "cpu":
                self._announce_length(self.total - step)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, values=self._values())
        elif step == self.total or time.monotonic() - self._printed > 20:
            self._printed = time.monotonic()
            self.console.print(f"step {step}/{self.total}  {self._values()}", highlight=False)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _announce_length(self, left: int) -> None:
        seconds = (self._ends[-1] - self._ends[0]) / (_MEASURED_STEPS - 1)
        hours = left * seconds / 3600
        if hours > _LONG_HOURS:
            self.console.print(
                f"note: without a GPU the {left} steps left take about {hours:.1f} h; fewer "
                "train.steps, a smaller view.crop or a smaller model.encoder (pixelcontrast list "
                "models) make it shorter",
                style="yellow",
                highlight=False,
            )

    def _values(self) -> str:
        last = self.journal.last
        parts = [
            f"{n.removeprefix('loss/')} {v:.3f}" for n, v in last.items() if n.startswith("loss/")
        ]
        parts += [f"{n} {100 * v:.1f} %" for n, v in last.items() if n.startswith("miou")]
        if "images_per_second" in last:
            parts.append(f"{last['images_per_second']:.1f} images/s")
        if "memory_gb" in last:
            parts.append(f"{last['memory_gb']:.1f} GB")
        return "  ".join(parts)
