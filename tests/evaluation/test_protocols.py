"""Class maps of the protocols, from the values in the published masks to the classes scored."""

import pytest
import torch

from pixelcontrast.data.cityscapes import INFO27
from pixelcontrast.data.coco import STUFF27
from pixelcontrast.evaluation import PROTOCOLS, protocols_of

INFOS = {"coco_stuff27": STUFF27, "cityscapes27": INFO27}


def scored_class(protocol, value):
    """Class of a value of a published mask."""
    info = INFOS[PROTOCOLS[protocol].dataset]
    label = info.label_map.get(value, info.ignore_index)
    return int(PROTOCOLS[protocol].relabel(torch.tensor([label]), info.ignore_index))


@pytest.mark.parametrize(
    ("protocol", "value", "expected"),
    [
        ("coco_stuff27", 0, 9),  # person
        ("coco_stuff27", 71, 0),  # tv
        ("coco_stuff27", 91, 17),  # banner
        ("coco_stuff27", 181, 24),  # wood
        ("coco_stuff27", 255, 255),
        ("coco_stuff15", 91, 5),
        ("coco_stuff15", 0, 255),
        ("coco_stuff3", 156, 0),  # sky-other
        ("coco_stuff3", 168, 1),  # tree
        ("coco_stuff3", 148, 2),  # road
        ("coco_stuff3", 91, 255),
        ("cityscapes27", 7, 0),
        ("cityscapes27", 33, 26),
        ("cityscapes27", 6, 255),
        ("cityscapes27_picie", 33, 26),
        *(
            ("cityscapes7", value, group)
            for group, values in enumerate(
                [(7, 10), (11, 16), (17, 20), (21, 22), (23,), (24, 25), (26, 33)]
            )
            for value in values
        ),
        ("cityscapes7", 4, 255),
    ],
)
def test_values_of_masks(protocol, value, expected):
    assert scored_class(protocol, value) == expected


def test_potsdam():
    mask = torch.tensor([[0, 1, 2, 3, 4, 5, 255]], dtype=torch.uint8)
    mapped = PROTOCOLS["potsdam3"].relabel(mask)
    assert mapped.tolist() == [[0, 1, 2, 2, 0, 1, 255]]
    assert mapped.dtype == torch.uint8


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_class_is_named_and_has_members(name):
    protocol = PROTOCOLS[name]
    assert set(protocol.class_of) - {-1} == set(range(protocol.num_classes))
    if protocol.dataset in INFOS:
        classes = INFOS[protocol.dataset].classes
        assert len(protocol.class_of) == len(classes)
        assert len(protocol.names(classes)) == protocol.num_classes
    groups = protocol.things + protocol.stuff
    assert sorted(groups) in ([], list(range(protocol.num_classes)))


def test_names_of_things_and_stuff():
    coco = PROTOCOLS["coco_stuff27"]
    names = coco.names(STUFF27.classes)
    assert all(names[c].endswith("-things") for c in coco.things)
    assert all(names[c].endswith("-stuff") for c in coco.stuff)
    assert PROTOCOLS["coco_stuff15"].names(STUFF27.classes) == names[12:]
    cityscapes = PROTOCOLS["cityscapes27"]
    things = {cityscapes.names(INFO27.classes)[c] for c in cityscapes.things}
    assert {"person", "caravan", "bicycle"} < things
    assert "sky" not in things
    assert PROTOCOLS["cityscapes7"].names(INFO27.classes)[4] == "sky"
    with pytest.raises(ValueError, match="27 classes"):
        coco.names(("one",))


def test_protocols_of_a_data_set_differ_in_what_they_say():
    found = protocols_of("cityscapes27")
    assert [p.name for p in found] == ["cityscapes27", "cityscapes27_picie", "cityscapes7"]
    assert found[0].scored_on == ("val",)
    assert found[1].scored_on == ("train", "val")
    assert protocols_of("scenes") == ()
