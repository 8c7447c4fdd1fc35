"""How many masks a method needs: trains recipes over label counts and seeds, draws the curve.

    python benchmarks/label_efficiency.py scenes_few --methods supervised unimatch u2pl prcl
    python benchmarks/label_efficiency.py camvid_small_few --data CAMVID --labels 12 23 46 92

trains `<method>_<set>` with every number of labelled images and every seed, through the command
line as `benchmarks/compare.py` does (finished runs are kept, broken ones resumed). The seed of a
run also draws which images are labelled, the same ones for all methods, so that differences are
paired. Writes benchmarks/results/labels_<set>.json and docs/images/labels_<set>.svg (test mIoU of
the network that was best on the validation split; pale lines are single seeds) and prints a table.
`--plot` draws anew from the stored results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from compare import RESULTS, differences, gap, run, score, summarise
from pixelcontrast.report.chart import Chart, Series, line_chart
from pixelcontrast.report.words import method_title

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = ("#4d5a6d", "#2457d6", "#dd5f12", "#0c8f80", "#b427b8", "#5f8f0f", "#7444dd", "#a6660a")
"""The report's, dark enough for white and bright enough for black."""
KEY = "test_miou"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("set", help="suffix of the recipes, for example scenes_few")
    parser.add_argument("--methods", nargs="+", default=["supervised", "unimatch", "u2pl", "prcl"])
    parser.add_argument("--labels", nargs="+", type=int, default=[4, 8, 16, 24])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/labels"))
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--plot", action="store_true", help="draw the stored results")
    arguments = parser.parse_args()
    path = RESULTS / f"labels_{arguments.set}.json"
    if arguments.plot:
        results = json.loads(path.read_text())
    else:
        results = measure(arguments)
        path.write_text(json.dumps(results, indent=2) + "\n")
    image = IMAGES / f"labels_{arguments.set}.svg"
    image.write_text(picture(curve(results)) + "\n")
    print(table(results), path, image, sep="\n")


def measure(arguments: argparse.Namespace) -> dict:
    """Means, spreads and differences to the first method for every number of labels."""
    counts, record = {}, {}
    for labels in arguments.labels:
        methods = {}
        for method in arguments.methods:
            folders = []
            for seed in arguments.seeds:
                recipe = f"{method}_{arguments.set}"
                out = arguments.runs / f"{recipe}-{labels}labels-seed{seed}"
                chosen = [f"data.labeled={labels}", f"data.labeled_seed={seed}"]
                overrides = [*arguments.override, *chosen]
                folders.append(run(recipe, seed, out, arguments.data, overrides))
            methods[method] = summarise(folders)
            record = folders[0].read_record()
        counts[str(labels)] = {
            "methods": methods,
            "differences": differences(methods, arguments.methods[0]),
        }
    return {
        "set": arguments.set,
        "seeds": arguments.seeds,
        "overrides": arguments.override,
        "hardware": record["hardware"],
        "versions": record["versions"],
        "labels": counts,
    }


def curve(results: dict) -> Chart:
    """Test mIoU against the number of labelled images: a line a method, pale ones its seeds."""
    counts = results["labels"]
    series = []
    for place, name in enumerate(next(iter(counts.values()))["methods"]):
        title, colour = method_title(name), COLOURS[place % len(COLOURS)]
        cells = [(float(n), each["methods"][name]) for n, each in counts.items()]
        for number in range(len(results["seeds"])):
            points = [(n, cell["runs"][number][KEY]) for n, cell in cells]
            series.append(Series(title, points, colour, "raw"))
        series.append(Series(title, [(n, cell[f"{KEY}_mean"]) for n, cell in cells], colour))
    chart = line_chart(
        "Test mean IoU, %",
        series,
        y_format=lambda value: f"{100 * value:g}",
        x_label="labelled images",
    )
    assert chart is not None  # every method has points
    return chart


def picture(chart: Chart) -> str:
    """The chart as a file of its own, with the legend below, readable on white and on black."""
    columns, line = 3, 18
    frame = 240
    rows = -(-len(chart.legend) // columns)
    legend = ""
    for place, entry in enumerate(chart.legend):
        x = 52 + place % columns * 155
        y = frame + 24 + place // columns * line
        legend += f'<path class="line" d="M{x} {y - 4}h18" stroke="{entry.colour}"/>'
        legend += f'<text class="tick" x="{x + 24}" y="{y}">{entry.name}</text>'
    style = (
        "<style>text{font:12px sans-serif;fill:#7d8796}path{fill:none}.grid{stroke:#8884}"
        ".short{stroke:#7d8796}.line{stroke-width:2}.raw{stroke-width:1;opacity:.35}</style>"
    )
    height = frame + 16 + rows * line
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 {height}" role="img"'
    body = str(chart.svg).replace('<svg viewBox="0 0 520 240" role="img"', start, 1)
    opened = body.index(">") + 1
    title = f"<title>{chart.title}</title>"
    return body[:opened] + title + style + body[opened:].removesuffix("</svg>") + legend + "</svg>"


def table(results: dict) -> str:
    """Test mIoU in %, mean ± standard deviation, and the gain over the first method."""
    counts = results["labels"]
    lines = [["method", *counts], ["---"] * (1 + len(counts))]
    for name in next(iter(counts.values()))["methods"]:
        cells = [f"`{name}`"]
        for each in counts.values():
            cell = score(each["methods"][name], KEY)
            if name in each["differences"]:
                cell += f"; {gap(each['differences'][name][KEY])}"
            cells.append(cell)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
