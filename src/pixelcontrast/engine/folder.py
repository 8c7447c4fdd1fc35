"""The folder of a run: where everything it writes lies, and how it is claimed."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pixelcontrast.core.errors import CheckpointError, ConfigError, PixelContrastError
from pixelcontrast.core.files import write_json, write_text
from pixelcontrast.recipes import dump, parse_yaml

FORMATS = ("safetensors", "pt2", "onnx")
"""What a trained network can be exported as."""


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def record(self) -> Path:
        """What the run is and how it ended."""
        return self.root / "run.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged step or validation."""
        return self.root / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.root / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation mIoU."""
        return self.root / "checkpoints" / "best.ckpt"

    @property
    def model(self) -> Path:
        """The best network alone, ready to ship."""
        return self.root / "model.safetensors"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    def stage(self, name: str) -> RunFolder:
        """The folder of an earlier stage, built like that of a run."""
        return RunFolder(self.root / "stages" / name)

    def pseudo_labels(self, stage: str) -> Path:
        """The masks made before a stage."""
        return self.root / "pseudo_labels" / stage

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint, of the run or of one of its stages, to go on from."""
        return self.last.is_file() or any(self.root.glob("stages/*/checkpoints/last.ckpt"))

    def evaluation(self, split: str) -> Path:
        """Scores and pictures of one split."""
        return self.root / "evaluation" / split

    def create(self, *, force: bool) -> None:
        """Claim the folder for a new run.

        Raises:
            ConfigError: a run lies there already and `force` is off.
            PixelContrastError: the folder cannot be made or written.
        """
        if not force:
            self.refuse_existing()
        elif self._holds_run():
            shutil.rmtree(self.root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise PixelContrastError(
                f"the output folder cannot be written: {error.strerror}",
                where=self.root.absolute(),
                fix="choose another one with --out FOLDER",
            ) from error

    def require_checkpoint(self) -> None:
        """Make sure that there is something to resume.

        Raises:
            CheckpointError: there is nothing.
        """
        if not self.resumable:
            raise CheckpointError(
                "there is no checkpoint to resume from",
                where=self.last,
                fix="the run ended before its first checkpoint: start it again with --force"
                if self.config.exists()
                else "start the run without --resume",
            )

    def refuse_existing(self) -> None:
        """Make sure that no run lies in the folder.

        Raises:
            ConfigError: one does.
        """
        if self._holds_run():
            raise ConfigError(
                "this folder already holds a run",
                where=self.root,
                fix="continue with --resume, replace it with --force, or choose --out FOLDER",
            )

    def _holds_run(self) -> bool:
        return self.config.exists() or self.record.exists()

    def write_config(self, tree: dict[str, Any]) -> None:
        """Store the resolved configuration."""
        write_text(self.config, dump(tree))

    def read_config(self) -> dict[str, Any]:
        """The stored configuration.

        Raises:
            CheckpointError: there is no run in this folder.
        """
        if not self.config.is_file():
            raise CheckpointError(
                "this folder holds no run",
                where=self.root.absolute(),
                fix="give the folder of a run",
            )
        return parse_yaml(self.config.read_text(encoding="utf-8"), self.config)

    def read_record(self) -> dict[str, Any]:
        """The stored record, empty when the run never wrote one."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def update_record(self, **values: Any) -> None:
        """Merge values into the record."""
        write_json(self.record, {**self.read_record(), **values})


def model_file(path: str | Path) -> Path:
    """The model file that a run folder or a path stands for.

    Raises:
        CheckpointError: there is none.
    """
    given = Path(path).expanduser()
    found = given / "model.safetensors" if given.is_dir() else given
    if not found.is_file():
        fix = "give the folder of a run that was validated at least once, or a .safetensors file"
        if RunFolder(given).resumable:
            fix = "this run was stopped before its first validation: train with --resume to go on"
        raise CheckpointError("there is no trained model", where=found.absolute(), fix=fix)
    return found


def now() -> str:
    """The time in UTC, as ISO text."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def first_process() -> bool:
    """Whether this process was launched as the first one, known before a process group exists.

    Launchers (torchrun, SLURM, Lightning's own) tell their processes by these variables.
    """
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)
