import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="class")
def shared(request):
    """The network of a `ModelTester`, in evaluation mode, for tests that leave it as it is."""
    return request.cls.make().eval()
