"""The mean teacher: an exponential moving average of a network."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """An exponential moving average of a network, never trained, in evaluation mode.

    Tarvainen & Valpola, "Mean teachers are better role models" (NeurIPS 2017), equation 1:
    `teacher = d * teacher + (1 - d) * student` after every optimiser step, with
    `d = min(decay, 1 - 1 / (step + 1))` while warming up, which makes the teacher the plain mean
    of the first students and forgets the untrained start.

    Args:
        student: the network that is copied now and followed later.
        decay: largest d. 0.99 in U2PL and PRCL, 0.996 in UniMatch V2.
        warmup: use the rising d; the first update then copies the student.
        buffers: what happens to floating-point buffers such as batch-norm statistics: "copy"
            takes the student's, "average" treats them like parameters, "own" leaves them to the
            teacher's own forward passes in training mode (`teacher.module.train()`). Integer
            buffers are copied unless "own".
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        decay: float = 0.99,
        warmup: bool = True,
        buffers: Literal["copy", "average", "own"] = "copy",
    ) -> None:
        super().__init__()
        self.module = deepcopy(student).requires_grad_(False).eval()
        self.decay = decay
        self.warmup = warmup
        self.buffer_rule = buffers
        self.step = 0  # a number of the host: a buffer would be read back from the device

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move one step towards `student`; call once after every optimiser step."""
        decay = min(self.decay, 1 - 1 / (self.step + 1)) if self.warmup else self.decay
        own: list[Tensor] = list(self.module.parameters())
        other: list[Tensor] = list(student.parameters())
        if self.buffer_rule != "own":
            average = self.buffer_rule == "average"
            for mine, theirs in zip(self.module.buffers(), student.buffers(), strict=True):
                if average and mine.is_floating_point():
                    own.append(mine)
                    other.append(theirs)
                else:
                    mine.copy_(theirs)
        torch._foreach_lerp_(own, other, 1 - decay)
        self.step += 1

    @torch.no_grad()
    def restart(self, student: nn.Module) -> None:
        """Become a copy of `student`, buffers included, as if made now."""
        torch._foreach_copy_(list(self.module.parameters()), list(student.parameters()))
        for mine, theirs in zip(self.module.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)
        self.step = 0

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged network computes, without gradient."""
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> Teacher:
        """Leave the averaged network in the mode it is in, whatever happens around it."""
        self.training = mode
        return self

    def get_extra_state(self) -> Tensor:
        """The number of updates, so that a resumed run goes on with the same decay."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore what `get_extra_state` stored."""
        self.step = int(state)
