import pytest
from tests.recipes.miniatures import DRAW


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """The drawn folder of a data set, one a session."""
    drawn = {}

    def folder(name):
        if name not in drawn:
            drawn[name] = DRAW[name](tmp_path_factory.mktemp(name))
        return drawn[name]

    return folder
