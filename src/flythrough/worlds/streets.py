"""Streets between rows of houses."""

from __future__ import annotations

import math

from flythrough.worlds import furniture as things
from flythrough.worlds.builder import BLACK, Dice, SceneBuilder
from flythrough.worlds.grounds import add_ground, bark_skin, facade_skins
from flythrough.worlds.halls import listed
from flythrough.worlds.light import outdoor
from flythrough.worlds.palettes import (
    LEAF,
    STONE,
)
from flythrough.worlds.world import BOX, CYLINDER, World


def _row_of_houses(
    b: SceneBuilder, side: int, edge: float, skins: list[tuple[int, int, str]]
) -> list[str]:
    dice = b.dice
    words: list[str] = []
    z = -9.0
    while z < 62.0 and b.room_left > 34:
        width, height = dice.between(3.6, 6.5), dice.between(3.2, 8.5)
        skin, roof, word = dice.pick(skins)
        depth = 5.0
        x = side * (edge + depth + dice.between(0.0, 0.7))
        b.standing(BOX, x, z + width, (depth, height, width), (skin, skin, roof, skin), contact=0.3)
        if len(words) < 2:
            words.append(f"{word} buildings")
        if dice.chance(0.45) and z < 45:
            front = b.fitted("shop", dice.between(5.5, 7.0), 3.2)
            b.standing(
                BOX,
                x - side * (depth - 0.12),
                z + width,
                (0.25, 1.6, width - 0.6),
                (front, skin, roof, skin),
                contact=0.2,
            )
        z += 2 * width + (dice.between(0.5, 3.0) if dice.chance(0.25) else 0.0)
    return words


def _street_furniture(b: SceneBuilder, road: float) -> list[str]:
    dice = b.dice
    words = []
    leaf = dice.pick(LEAF)
    bark, crown = bark_skin(b), things.foliage(b, leaf, 1.5)
    z = dice.between(5.0, 8.0)
    if dice.chance(0.75):
        while z < 40 and b.room_left > 20:
            side = dice.pick((-1, 1))
            things.tree(b, side * (road + 0.7), z, leaf, (bark, crown), conifer=False)
            z += dice.between(5.0, 10.0)
        words.append(f"{leaf.name} trees")
    dark = b.plain((0.24, 0.26, 0.26))
    for index in range(3):
        x, z = (road + 0.4) * (-1 if index % 2 else 1), 4.0 + 9.0 * index + dice.between(-1.5, 1.5)
        b.standing(CYLINDER, x, z, (0.055, 2.3, 0.055), dark)
        b.standing(
            BOX, x - math.copysign(0.3, x), z, (0.45, 0.05, 0.12), dark, above=4.55, contact=0.0
        )
    return words


def street(seed: int) -> World:
    """A street between rows of houses, with pavements, trees, lamps and cars."""
    dice = Dice(seed, "street")
    b = SceneBuilder(dice)
    road, walk = dice.between(2.8, 4.2), dice.between(2.0, 3.2)
    grey = dice.between(0.27, 0.42)
    asphalt = b.material(
        "asphalt", 2.5, ((grey, grey, grey * 1.02), (0.6, 0.6, 0.58), BLACK), detail=0.5
    )
    add_ground(b, asphalt)
    paving = b.material(
        dice.pick(("tiles", "blocks", "concrete")),
        2.2,
        (dice.shade(dice.pick(STONE).rgb), (0.55, 0.53, 0.50), (0.38, 0.37, 0.36)),
    )
    for edge in (-1, 1):
        b.standing(
            BOX, edge * (road + walk / 2 + 3), 28.0, (walk / 2 + 3, 0.06, 45.0), paving, contact=0.0
        )
    line = b.material("stripes", (400.0, 9.0), ((0.85, 0.85, 0.82),) * 3, detail=0.6)
    for z in range(5):
        b.standing(BOX, 0.0, 2.0 + 7.0 * z, (0.07, 0.004, 1.5), line, contact=0.0)
    skins = [facade_skins(b) for _ in range(dice.whole(4, 6))]
    words = _row_of_houses(b, -1, road + walk, skins) + _row_of_houses(b, 1, road + walk, skins)
    skin, roof, _ = dice.pick(skins)
    b.standing(
        BOX, dice.between(-6, 6), 75.0, (14.0, dice.between(5, 11), 4.0), (skin, skin, roof, skin)
    )
    for index in range(dice.whole(1, 3)):
        side = dice.pick((-1, 1))
        along = dice.between(5.0, 9.0) + 7.0 * index
        words.append(things.car(b, side * (road - 1.0), along, 0.0 if side > 0 else math.pi))
    if dice.chance(0.45):
        side = dice.pick((-1, 1))
        mover = b.mover(velocity=(0.0, 0.0, side * dice.between(1.5, 5.0)))
        words.append(
            things.car(b, side * 0.95, dice.between(12, 26), 0.0 if side > 0 else math.pi, mover)
            + " driving"
        )
    words += _street_furniture(b, road)
    on_walk = dice.chance(0.45)
    aside = road + 0.55 * walk
    x = dice.pick((-aside, aside)) if on_walk else dice.between(-0.6, 0.6)
    yaw = -math.copysign(dice.between(0.05, 0.35), x) if on_walk else dice.between(-0.3, 0.3)
    weather = outdoor(b, (0.0, 0.0, 14.0), 30.0, yaw)
    caption = f"A street {weather} with {listed(words[:6])}."
    return b.finish(
        seed, "street", caption, (x, -dice.between(1.55, 1.9), 0.0), yaw, dice.between(-0.12, 0.02)
    )
