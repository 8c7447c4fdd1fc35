"""Print the table of published data sets and the table of published lists for docs/datasets.md.

Run: python benchmarks/dataset_tables.py
"""

from pixelcontrast.data import DATASETS, guide, published_lists


def dataset_table() -> str:
    """One row a data set: classes, images, layout, whether it can be downloaded."""
    rows = [
        "| name | classes | images | folder | `data prepare` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, layout in DATASETS.items():
        if layout.info is not None:
            images = ", ".join(f"{split} {n:,}" for split, n in layout.published.items())
            how = "downloads" if guide(name).archives else "says what to get"
            rows.append(
                f"| `{name}` | {layout.info.num_classes} | {images} | {layout.about} | {how} |"
            )
    return "\n".join(rows)


def list_table() -> str:
    """One row a published list: images, hash."""
    rows = ["| `data.labeled=` | images | SHA-256 of the ids |", "| --- | --- | --- |"]
    rows += [
        f"| `{one.name}` | {one.count:,} | `{one.sha256[:16]}` |"
        for one in published_lists().values()
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    print(dataset_table(), list_table(), sep="\n\n")
