import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
label_efficiency = pytest.importorskip("label_efficiency")


def cell(scores):
    runs = [{"test_miou": value} for value in scores]
    mean = sum(scores) / len(scores)
    return {"runs": runs, "test_miou_mean": mean, "test_miou_std": 0.01}


RESULTS = {
    "set": "scenes_few",
    "seeds": [0, 1],
    "labels": {
        count: {
            "methods": {"supervised": cell(low), "u2pl": cell(high)},
            "differences": {"u2pl": {"test_miou": {"mean": 0.05, "standard_error": 0.002}}},
        }
        for count, low, high in (("4", [0.2, 0.22], [0.25, 0.27]), ("8", [0.3, 0.3], [0.35, 0.35]))
    },
}


def test_a_line_a_method_and_a_pale_one_a_seed():
    chart = label_efficiency.curve(RESULTS)
    assert [entry.name for entry in chart.legend] == ["Supervised", "U2PL"]
    assert chart.legend[1].points == [(4.0, pytest.approx(0.26)), (8.0, pytest.approx(0.35))]
    picture = ET.fromstring(label_efficiency.picture(chart))
    space = "{http://www.w3.org/2000/svg}"
    styles = [path.get("class") for path in picture.iter(f"{space}path")]
    assert styles.count("raw") == 4
    assert styles.count("line") == 2 + 2  # in the chart and in the legend
    texts = [text.text for text in picture.iter(f"{space}text")]
    assert {"labelled images", "Supervised", "U2PL", "4", "8"} <= set(texts)
    colours = {path.get("stroke") for path in picture.iter(f"{space}path")} - {None}
    assert all(colour.startswith("#") for colour in colours)  # no style sheet of the report


def test_the_table_has_gains_beside_the_scores():
    last = label_efficiency.table(RESULTS).splitlines()[-1]
    assert last == (
        "| `u2pl` | 26.00 ± 1.00; +5.00 (s.e. 0.20) | 35.00 ± 1.00; +5.00 (s.e. 0.20) |"
    )
