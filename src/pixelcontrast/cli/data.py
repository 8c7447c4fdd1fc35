"""`pixelcontrast data`: get a data set, look at it, check it, split it, make one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixelcontrast.core.errors import ConfigError, DataError

app = typer.Typer(
    help="Get a data set, look at it, check it, split it, or make one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Root = Annotated[Path, typer.Argument(help="Folder of the data set.")]
Name = Annotated[str, typer.Option(help="Layout; auto recognises it.")]


@app.command()
def check(
    root: Root,
    name: Name = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not text.")] = False,
) -> None:
    """Read every image and mask and list all problems."""
    import json

    from pixelcontrast.data import check_dataset, open_dataset

    report = check_dataset(open_dataset(root, name, strict=False), decode_images=True)
    typer.echo(
        json.dumps(report.to_dict(), indent=2)
        if as_json
        else "\n".join(report.lines() or ["no problems found"])
    )
    if report.errors:
        count = len(report.errors)
        raise DataError(f"{count} error{'s' if count > 1 else ''}", where=root)


@app.command()
def info(root: Root, name: Name = "auto") -> None:
    """Show classes, sizes, rare classes and how much is unlabelled."""
    from pixelcontrast.data import check_dataset, open_dataset

    dataset = open_dataset(root, name)
    report = check_dataset(dataset)
    stats = report.stats
    typer.echo(f"{dataset.info.name} at {dataset.root.absolute()}")
    sizes = ", ".join(f"{n} of {h} x {w}" for h, w, n in stats.sizes[:5])
    typer.echo(f"images: {stats.images} ({stats.labeled} with mask): {sizes}")
    if len(stats.sizes) > 5:
        typer.echo(f"        and {len(stats.sizes) - 5} more sizes")
    if report.errors:
        typer.echo(f"note: {len(report.errors)} errors; see 'pixelcontrast data check {root}'")
    typer.echo("splits: " + ", ".join(f"{name} {count}" for name, count in stats.splits.items()))
    width = max((len(c.name) for c in stats.classes), default=5)
    typer.echo(f"classes, counted on {stats.counted}; {stats.ignored_share:.1%} ignored:")
    for c in stats.classes:
        mark = "  rare" if c.rare else ""
        typer.echo(f"  {c.name:<{width}} {c.share:>7.2%} of pixels, in {c.images} images{mark}")


@app.command()
def split(
    root: Root,
    name: Name = "auto",
    fraction: Annotated[float | None, typer.Option(help="Share of the training images.")] = None,
    count: Annotated[int | None, typer.Option(help="Number of training images.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the lists [ROOT/splits].")] = None,
) -> None:
    """Choose labelled images at random so that every class occurs, and list the rest."""
    if (fraction is None) == (count is None):
        raise ConfigError("give either --fraction or --count")

    from pixelcontrast.data import complement, count_classes, make_split, open_dataset, write_split

    dataset = open_dataset(root, name)
    chosen = make_split(dataset, count_classes(dataset), fraction=fraction, count=count, seed=seed)
    rest = complement(dataset, chosen)
    folder = out or dataset.root / "splits"
    # The held-out images must stay the same when other lists appear, or change.
    held_out = {name: dataset.splits[name] for name in ("val", "test") if name in dataset.splits}
    for split_name, ids in held_out.items():
        if not (folder / f"{split_name}.txt").exists():
            write_split(folder / f"{split_name}.txt", ids)
            typer.echo(f"{split_name}: {len(ids)} images, kept apart  {folder}/{split_name}.txt")
    for one in (chosen, rest):
        write_split(folder / f"{one.name}.txt", one.ids)
        typer.echo(
            f"{one.name}: {len(one.ids)} images, sha256 {one.sha256[:12]}  {folder}/{one.name}.txt"
        )
    if chosen.uncovered:
        typer.echo(f"classes in no labelled image: {', '.join(chosen.uncovered)}")


@app.command()
def make(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    train: Annotated[int, typer.Option(help="Training images.")] = 200,
    val: Annotated[int, typer.Option(help="Validation images.")] = 50,
    test: Annotated[int, typer.Option(help="Test images.")] = 50,
    labeled: Annotated[int | None, typer.Option(help="Training images with masks [all].")] = None,
    size: Annotated[str, typer.Option(help="Height x width.")] = "96x128",
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
    hard: Annotated[bool, typer.Option("--hard", help="More confusable classes.")] = False,
) -> None:
    """Make the generated data set `scenes` as a folder of images and masks."""
    height, _, width = size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigError(f"cannot read --size {size!r}", fix="write 96x128")

    from pixelcontrast.data import make_scenes

    made = make_scenes(
        out,
        train=train,
        val=val,
        test=test,
        labeled=labeled,
        size=(int(height), int(width)),
        seed=seed,
        hard=hard,
    )
    typer.echo(str(made))


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="A published data set; see `list datasets`.")],
    out: Annotated[Path, typer.Option(help="Folder where its files are or shall be.")],
    source: Annotated[
        str | None, typer.Option(help="Address of a folder with the same archives.")
    ] = None,
    download: Annotated[bool, typer.Option(help="Download what may be downloaded.")] = True,
) -> None:
    """Say what a published data set consists of, download what may be, and count what is there."""
    from pixelcontrast.data import (
        DATASETS,
        download_missing,
        guide,
        open_dataset,
        problem_lines,
    )

    steps = guide(name)
    typer.echo(f"{name}: {steps.page}\nterms: {steps.terms}\nwhat goes below {out.absolute()}:")
    typer.echo("\n".join(f"  * {step}" for step in steps.steps))
    if download:
        for file in download_missing(steps, out.expanduser(), source=source, progress=_show):
            typer.echo(f"unpacked {file}")
    if not out.is_dir() or not DATASETS[name].recognise(out):
        raise DataError(
            f"{name} is not there yet", where=out.absolute(), fix="follow the steps above"
        )
    dataset = open_dataset(out, name, strict=False)
    splits = ", ".join(f"{split} {len(ids):,}" for split, ids in dataset.splits.items())
    typer.echo(f"found: {splits}")
    typer.echo("\n".join(problem_lines(dataset.problems) or ["complete"]))


def _show(done: int, total: int | None) -> None:
    share = f" of {total / 2**20:.0f}" if total else ""
    typer.echo(f"\r  {done / 2**20:.0f}{share} MiB", nl=done == total, err=True)


@app.command("lists")
def show_lists(
    dataset: Annotated[str | None, typer.Argument(help="Only lists of this data set.")] = None,
) -> None:
    """Show the published lists of labelled images that `data.labeled=NAME` can name."""
    from pixelcontrast.data import published_lists

    for one in published_lists().values():
        if dataset is None or one.name.split("/")[1] == dataset:
            typer.echo(f"{one.name:<26} {one.count:>6} images  sha256 {one.sha256[:12]}")
