"""The demo: the same small network on 24 labelled streets, without and with pixel contrast.

Run by `make demo`; needs no download and no GPU. Everything goes to runs/demo.
"""

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import pixelcontrast as pc

OUT = Path("runs/demo")
RECIPES = ("supervised_scenes", "pico_scenes")


def main() -> None:
    console = Console()
    started = time.perf_counter()
    runs = []
    for recipe in RECIPES:
        console.rule(recipe)
        runs.append(pc.train(recipe, out=OUT / recipe, force=True, console=console))
    report = pc.write_report([run.root for run in runs], OUT / "report.html")

    table = Table("method", "best mIoU", "at step", "seconds", title="24 labelled scenes, one seed")
    for run in runs:
        record = run.read_record()
        best = record["best"]
        miou = f"{100 * best['miou']:.1f} %"
        table.add_row(record["method"], miou, str(best["step"]), f"{record['seconds']:.0f}")
    console.print(table)
    console.print("One seed says little: benchmarks/compare.py repeats this over several.")
    console.print(f"{time.perf_counter() - started:.0f} seconds in all; report: {report}")


if __name__ == "__main__":
    main()
