from pathlib import Path

from benchmarks.dataset_tables import dataset_table, list_table


def test_the_tables_in_the_documentation_are_current():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    assert dataset_table() in text
    assert list_table() in text
