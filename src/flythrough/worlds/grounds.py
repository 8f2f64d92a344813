"""What outdoor layouts share: ground, lawn, facades and huts."""

from __future__ import annotations

import math

from flythrough.worlds.builder import BLACK, WHITE, SceneBuilder
from flythrough.worlds.palettes import (
    BRICK,
    GRASS,
    PAINT,
    STONE,
    VIVID,
    WOOD,
    mixed,
    scaled,
)
from flythrough.worlds.world import BOX, PLANE


def lawn_skin(b: SceneBuilder, tile: float = 2.2) -> tuple[int, str]:
    grass = b.dice.pick(GRASS)
    base = b.dice.shade(grass.rgb)
    dry = mixed(base, (0.62, 0.55, 0.32), 0.5)
    skin = b.material("grass", tile, (base, dry, mixed(base, WHITE, 0.25)), detail=0.55)
    return skin, f"{grass.name} grass"


def add_ground(b: SceneBuilder, skin: int) -> None:
    b.add(PLANE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), skin, contact=0.0)


def bark_skin(b: SceneBuilder) -> int:
    tone = b.dice.pick(((0.36, 0.28, 0.20), (0.48, 0.42, 0.35), (0.30, 0.24, 0.20)))
    return b.material("bark", 0.8, (tone, mixed(tone, WHITE, 0.3), tone))


def facade_skins(b: SceneBuilder) -> tuple[int, int, str]:
    """Materials of facade and roof, and the building's word."""
    dice = b.dice
    layer = dice.pick(
        ("facade flats", "facade flats", "facade old", "facade office", "facade brick")
    )
    colour = dice.pick(PAINT[:11])
    wall, word = dice.shade(colour.rgb), colour.name
    if layer == "facade brick":
        brick = dice.pick(BRICK)
        wall, word = dice.shade(scaled(brick.rgb, 1.15)), brick.name
    if layer == "facade office":
        wall = dice.shade(dice.pick(STONE).rgb)
        word = "office"
    glass = dice.pick(((0.42, 0.52, 0.60), (0.36, 0.42, 0.46), (0.52, 0.60, 0.64)))
    trim = dice.pick((WHITE, mixed(wall, WHITE, 0.6), scaled(wall, 0.5)))
    storey = dice.between(3.0, 3.5)
    tile = {"facade office": (8.0, 2.0), "facade old": (5.2, 2.0)}.get(layer, (7.8, 2.0))
    skin = b.material(
        layer,
        (tile[0] * dice.between(0.9, 1.1), tile[1] * storey),
        (wall, glass, trim),
        detail=0.25,
        offset=(dice.unit(), 0.0),
    )
    roof = b.material(
        "roof",
        3.0,
        (
            dice.pick(((0.55, 0.32, 0.24), (0.40, 0.40, 0.42), (0.48, 0.36, 0.30))),
            (0.3, 0.35, 0.25),
            BLACK,
        ),
    )
    return skin, roof, word


def add_hut(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, tone = b.dice, b.dice.pick(WOOD[:6])
    wall = b.wood(dice.shade(tone.rgb), "planks", 2.0)
    roof = b.material(
        "roof",
        2.5,
        (dice.pick(((0.55, 0.30, 0.22), (0.36, 0.36, 0.38))), (0.30, 0.36, 0.24), BLACK),
    )
    door = b.fitted(
        "door", 1.0, 2.0, (dice.pick(VIVID).rgb, scaled(tone.rgb, 0.6), (0.8, 0.7, 0.4))
    )
    wide, high = dice.between(1.6, 2.4), dice.between(1.1, 1.4)
    b.standing(BOX, x, z, (wide, high, wide), wall, yaw=yaw)
    b.add(
        BOX,
        (x, -2 * high, z),
        (wide * 0.74, wide * 0.74, wide - 0.01),
        (roof, wall, roof, roof),
        yaw=yaw,
        roll=math.pi / 4,
        contact=0.0,
    )
    forward = (-math.sin(yaw) * wide, -math.cos(yaw) * wide)
    b.standing(
        BOX,
        x + forward[0],
        z + forward[1],
        (0.5, 1.0, 0.05),
        (wall, door, wall, wall),
        yaw=yaw,
        contact=0.2,
    )
    return f"a {tone.name} hut"
