import warnings

import pytest
import torch

from pixelcontrast.methods.kept import KeptWatch

NONE, ONE = torch.zeros(2, 3, dtype=torch.bool), torch.eye(2, 3).bool()


def test_warns_once_after_many_steps_without_a_pixel_and_names_the_setting():
    watch = KeptWatch("no pixel was trusted: method.threshold = 0.95", patience=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for keep in (NONE, NONE, ONE, NONE, NONE):
            watch.note(keep)
    with pytest.warns(UserWarning, match=r"in 3 steps no pixel .* method\.threshold = 0\.95"):
        watch.note(NONE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            watch.note(NONE)
