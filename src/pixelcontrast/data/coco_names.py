"""Class names of COCO and COCO-Stuff (Caesar et al. 2018), and the 27 coarse classes."""

from __future__ import annotations

_FINE = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
hydrant, street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow,
elephant, bear, zebra, giraffe, hat, backpack, umbrella, shoe, eye glasses, handbag, tie,
suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl, banana,
apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted
plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush, hair brush, banner, blanket, branch, bridge,
building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth,
clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble,
floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit,
furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal,
mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic,
platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea,
shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table,
tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel,
wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
"""
_COARSE = """
electronic-things, appliance-things, food-things, furniture-things, indoor-things,
kitchen-things, accessory-things, animal-things, outdoor-things, person-things, sports-things,
vehicle-things, ceiling-stuff, floor-stuff, food-stuff, furniture-stuff, rawmaterial-stuff,
textile-stuff, wall-stuff, window-stuff, building-stuff, ground-stuff, plant-stuff, sky-stuff,
solid-stuff, structural-stuff, water-stuff
"""
_FINE_TO_COARSE = (
    "JLLLLLLLLIIIIIIHHHHHHHHHHGGGGGGGGKKKKKKKKKKFFFFFFFFCCCCCCCCCCDDDDDDDDDDAAAAAABBBBBBEEEEEEEE"
    "RRWUUWPZQNMMRRXPPRPVPZNNNNNW[OOPWVVYUWPRQPWYVRZQVRWQVVZV[VYUROV[PXUVYPYWZPURRWOSSSSSSS[[TTY"
)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(","))


FINE = _names(_FINE)
"""182 names by the value in a mask of COCO-Stuff: 91 things of COCO, then 91 kinds of stuff."""
UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
"""Values of things that COCO planned and never annotated."""
THINGS = 91
"""Values below this are things."""
COARSE = _names(_COARSE)
"""27 groups: 12 of things, 15 of stuff."""
FINE_TO_COARSE = tuple(ord(letter) - ord("A") for letter in _FINE_TO_COARSE)
"""Group of each of the 182 values, as the hierarchy of COCO-Stuff has it."""
USED = tuple(value for value in range(len(FINE)) if value not in UNUSED)
"""The 171 values that occur; their places are the class ids."""
