"""Names of the data layouts, apart from their code so that listing them imports nothing heavy."""

DATASET_SUMMARIES = {
    "camvid": "CamVid as in the SegNet tutorial: train/ trainannot/ train.txt ...",
    "camvid32": "CamVid as published, 32 colours: 701_StillsRaw_full/ LabeledApproved_full/",
    "scenes": "generated streets, made by `pixelcontrast data make`; a folder like the next",
    "folder": "your own: images/ with optional masks/ (same names), dataset.yaml, splits/*.txt",
    "images": "images without masks, directly in the folder",
}
"""Layout name -> one line, in the order in which they are tried."""
