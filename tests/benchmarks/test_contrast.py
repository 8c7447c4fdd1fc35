import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "contrast.py"


@pytest.fixture
def run(monkeypatch, tmp_path):
    def call(*arguments):
        out = tmp_path / "contrast.json"
        threads = torch.get_num_threads()
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--out", str(out), *arguments])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        return json.loads(out.read_text())

    return call


def test_sections_are_measured_merged_and_drawn(run, tmp_path, capsys):
    results = run("--quick", "--only", "self", "skew", "bank")
    assert {"self", "skew", "bank", "machine"} <= results.keys()
    row = results["self"][0]["methods"]
    assert row["products"]["ratio"] == 1
    assert row["tiled_pico"]["seconds"] > 0
    results = run("--quick", "--only", "self", "--sizes", "128")
    assert {row["count"] for row in results["self"]} == {256}  # quick sizes replace the asked ones
    assert "skew" in results
    out = tmp_path / "contrast.json"
    peak = {"method": "tiled_pico", "count": 256, "dim": 64, "slots": 0, "mib": 3.0}
    results["self"][0]["dim"] = 64
    out.write_text(json.dumps(results | {"peak": [peak]}))
    capsys.readouterr()
    run("--table", "--plot", str(tmp_path / "plot.svg"))
    assert "| tiled_pico | 256 | 64 | the anchors | 3 |" in capsys.readouterr().out
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_forms_of_the_benchmark_agree():
    names = runpy.run_path(str(SCRIPT))
    x, y = names["problem"](200, 16)
    torch.testing.assert_close(names["released"](x, y), names["tiled_pico"](x, y))
    torch.testing.assert_close(names["full_pico"](x, y), names["tiled_pico"](x, y))
    torch.testing.assert_close(names["full_supcon"](x, y), names["tiled_supcon"](x, y))
    other = names["metric_learning"]()
    if other is not None:
        torch.testing.assert_close(other(x, y), names["tiled_supcon"](x, y), rtol=1e-4, atol=0)
    keys, ids = names["problem"](300, 16)
    torch.testing.assert_close(
        names["released"](x, y, keys, ids), names["tiled_pico"](x, y, keys, ids)
    )
