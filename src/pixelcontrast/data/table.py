"""Names of the data layouts, apart from their code so that listing them imports nothing heavy."""

DATASET_SUMMARIES = {
    "camvid": "CamVid as in the SegNet tutorial: train/ trainannot/ train.txt ...",
    "camvid32": "CamVid as published, 32 colours: 701_StillsRaw_full/ LabeledApproved_full/",
    "cityscapes": "Cityscapes, 19 classes: leftImg8bit/ gtFine/",
    "cityscapes27": "Cityscapes, 27 classes: the same folders; only when named",
    "pascal_context": "PASCAL-Context, 59 classes: JPEGImages/ with trainval/*.mat or "
    "SegmentationClassContext/",
    "pascal_context60": "PASCAL-Context with background: the same folders; only when named",
    "voc": "PASCAL VOC 2012 and SBD: JPEGImages/ SegmentationClass/ with SegmentationClassAug/ "
    "or benchmark_RELEASE/",
    "ade20k": "ADE20K, 150 classes: images/training/ annotations/training/ ...",
    "coco_stuff10k": "COCO-Stuff 10k, 171 classes: images/ annotations/*.mat imageLists/",
    "coco_stuff": "COCO-Stuff, 171 classes: train2017/ val2017/ stuffthingmaps/",
    "coco_stuff27": "COCO-Stuff, 27 classes: the same folders; only when named",
    "coco": "COCO, 80 objects and background: train2017/ val2017/ masks/",
    "scenes": "generated streets, made by `pixelcontrast data make`; a folder like the next",
    "folder": "your own: images/ with optional masks/ (same names), dataset.yaml, splits/*.txt",
    "images": "images without masks, directly in the folder",
}
"""Layout name -> one line, in the order in which they are tried."""
