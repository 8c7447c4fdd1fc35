import pytest

from pixelcontrast.core.lazy import lazy_names


def test_names_come_from_their_modules():
    names, find = lazy_names("pixelcontrast.core", {"errors": ("DataError", "did_you_mean")})
    from pixelcontrast.core.errors import DataError

    assert names == ["DataError", "did_you_mean"]
    assert find("DataError") is DataError
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        find("missing")


@pytest.mark.parametrize("package", ["data", "models"])
def test_every_name_of_the_lazy_packages_exists(package):
    import importlib

    module = importlib.import_module(f"pixelcontrast.{package}")
    for name in module.__all__:
        assert getattr(module, name) is not None
