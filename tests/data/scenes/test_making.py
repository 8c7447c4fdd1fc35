import numpy as np
import pytest

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data.catalog import open_dataset, recognise
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.reading import read_image, read_mask
from pixelcontrast.data.scenes import SCENES_INFO, make_scenes, render_scene


@pytest.fixture(scope="module")
def many():
    return [render_scene(i, hard=i % 2 == 1) for i in range(60)]


def test_scenes_are_the_same_every_time():
    image, mask = render_scene(7)
    again, mask_again = render_scene(7)
    assert (image == again).all()
    assert (mask == mask_again).all()
    for other in (render_scene(8), render_scene(7, seed=1), render_scene(7, hard=True)):
        assert (other[0] != image).mean() > 0.5


@pytest.mark.parametrize("size", [(16, 16), (97, 33), (64, 257), (200, 300)])
@pytest.mark.parametrize("hard", [False, True])
def test_any_size(size, hard):
    for index in range(4):
        image, mask = render_scene(index, size, hard=hard)
        assert image.shape == (*size, 3)
        assert mask.shape == size
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask).tolist()) <= {*range(8), 255}


def test_impossible_scenes_are_refused():
    for index, size, seed in ((0, (15, 64), 0), (-1, (64, 64), 0), (0, (64, 64), -1)):
        with pytest.raises(ConfigError, match="no scene"):
            render_scene(index, size, seed)


def test_all_classes_occur_some_small_and_rare(many):
    pixels = np.stack([np.bincount(mask.ravel(), minlength=256) for _, mask in many])
    share = pixels.sum(axis=0) / pixels.sum()
    shown = (pixels > 0).mean(axis=0)
    names = SCENES_INFO.classes
    assert (share[:8] > 0.001).all()
    for name in ("person", "sign"):
        assert share[names.index(name)] < 0.1 / 8
    assert 0.3 < shown[names.index("person")] < 0.9
    assert 0 < share[255] < 0.02
    assert share[:8].max() < 0.5


def test_the_ground_is_whole(many):
    """In every column below the horizon road and pavement meet without slits of other ground."""
    for _, mask in many:
        ground = mask[-30:]
        vegetation, road = SCENES_INFO.classes.index("vegetation"), 2
        between = (ground[:, 1:-1] == vegetation) & (ground[:, :-2] == road)
        assert not (between & (ground[:, 2:] == road)).any()


def test_colour_alone_does_not_give_the_class(many):
    """Nearest mean colour of the other scenes: far below what the classes' places allow."""
    means = []
    for label in range(8):
        pixels = np.concatenate([image[mask == label] for image, mask in many[30:]])
        means.append(pixels.mean(axis=0))
    right = total = 0
    for image, mask in many[:30]:
        distance = ((image[:, :, None].astype(float) - np.array(means)) ** 2).sum(-1)
        labelled = mask != 255
        right += (distance.argmin(-1) == mask)[labelled].sum()
        total += labelled.sum()
    assert right / total < 0.5


def test_a_folder_of_scenes(tmp_path):
    calls = []
    root = make_scenes(
        tmp_path / "scenes", train=10, val=3, test=2, labeled=4, size=(48, 64),
        progress=lambda *a: calls.append(a),
    )  # fmt: skip
    assert calls[-1] == (15, 15)
    assert recognise(root) == "scenes"
    dataset = open_dataset(root, "scenes")
    assert dataset.info == SCENES_INFO
    counts = {name: len(ids) for name, ids in dataset.splits.items()}
    assert counts == {"train": 10, "val": 3, "test": 2, "labeled": 4, "unlabeled": 6}
    assert set(dataset.splits["labeled"]) | set(dataset.splits["unlabeled"]) == set(
        dataset.splits["train"]
    )
    report = check_dataset(dataset, decode_images=True)
    assert report.ok
    sample = dataset.select("val")[1]
    image, mask = render_scene(1_000_001, (48, 64))
    assert (read_mask(sample.mask, dataset.info) == mask).all()
    assert np.abs(read_image(sample.image).astype(int) - image).mean() < 3


def test_counts_of_one_split_do_not_move_the_others(tmp_path):
    one = make_scenes(tmp_path / "one", train=2, val=2, test=0, size=(32, 32))
    two = make_scenes(tmp_path / "two", train=3, val=1, test=1, size=(32, 32))
    for name in ("train_0001", "val_0000"):
        for kind in ("images", "masks"):
            (first,) = (one / kind).glob(f"{name}.*")
            (second,) = (two / kind).glob(f"{name}.*")
            assert first.read_bytes() == second.read_bytes()
    assert "labeled.txt" not in [path.name for path in (one / "splits").iterdir()]


def test_existing_folders_are_safe(tmp_path):
    arguments = {"train": 2, "val": 1, "test": 0, "size": (32, 32)}
    root = make_scenes(tmp_path / "scenes", **arguments)
    with pytest.raises(DataError, match="scenes already"):
        make_scenes(root, **arguments)
    (root / "mine.txt").write_text("keep")
    make_scenes(root, **{**arguments, "train": 1}, overwrite=True)
    assert len(open_dataset(root).samples) == 2
    assert (root / "mine.txt").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not empty"):
        make_scenes(foreign, **arguments, overwrite=True)
    assert (foreign / "thesis.tex").exists()
    with pytest.raises(DataError, match="is a file"):
        make_scenes(foreign / "thesis.tex", **arguments)


@pytest.mark.parametrize(
    "numbers", [{"train": 0}, {"val": -1}, {"train": 2, "labeled": 3}, {"labeled": 0}]
)
def test_impossible_numbers_are_refused(tmp_path, numbers):
    with pytest.raises(ConfigError, match="cannot make"):
        make_scenes(tmp_path / "x", **numbers)
