import pytest

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.names import FILE, read_names, write_names

CLUSTERS = ("cluster_00", "cluster_01", "cluster_02")


def test_the_file_to_fill_in_changes_nothing_until_it_is_filled_in(tmp_path):
    assert read_names(tmp_path, CLUSTERS).names == CLUSTERS
    write_names(tmp_path, CLUSTERS)
    naming = read_names(tmp_path, CLUSTERS)
    assert naming.names == CLUSTERS
    assert naming.class_of == (0, 1, 2)


def test_clusters_of_one_name_become_one_class(tmp_path):
    (tmp_path / FILE).write_text("cluster_00: sky\ncluster_02: sky\n")
    naming = read_names(tmp_path, CLUSTERS)
    assert naming.names == ("sky", "cluster_01")
    assert naming.class_of == (0, 1, 0)
    assert naming.first("cluster_01") == 1
    write_names(tmp_path, CLUSTERS)  # what a person has written stays
    assert read_names(tmp_path, CLUSTERS) == naming


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("cluster_9: sky", "no cluster"),
        ("cluster_00: 3", "cannot be called"),
        ("cluster_00: ' '", "cannot be called"),
        ("- sky", "mapping"),
    ],
)
def test_names_that_cannot_be_used_are_told(tmp_path, text, hint):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=hint):
        read_names(tmp_path, CLUSTERS)
