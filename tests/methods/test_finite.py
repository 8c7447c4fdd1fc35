import pytest
import torch

from pixelcontrast.core.errors import TrainingError
from pixelcontrast.methods.finite import FiniteWatch


def test_names_term_step_and_images():
    watch = FiniteWatch()
    watch.watch(3, {"ce": torch.tensor(1.0), "contrast": torch.tensor(2.0)}, ("a", "b"))
    watch.drain()
    with pytest.raises(TrainingError) as caught:
        watch.watch(
            4, {"ce": torch.tensor(1.0), "contrast": torch.tensor(float("nan"))}, ("street/7",)
        )
    assert "step 4" in str(caught.value)
    assert "contrast = nan" in str(caught.value)
    assert "ce" not in caught.value.what.split(":")[1]
    assert "street/7" in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_infinity_is_refused(value):
    with pytest.raises(TrainingError):
        FiniteWatch().watch(0, {"ce": torch.tensor(value)}, ())
