import pytest


@pytest.fixture(scope="class")
def shared(request):
    """The network of a `ModelTester`, in evaluation mode, for tests that leave it as it is."""
    return request.cls.make().eval()
