"""Open land and fenced yards."""

from __future__ import annotations

import math

from flythrough.worlds import furniture as things
from flythrough.worlds.builder import WHITE, Dice, SceneBuilder
from flythrough.worlds.grounds import add_ground, add_hut, bark_skin, facade_skins, lawn_skin
from flythrough.worlds.halls import listed
from flythrough.worlds.light import outdoor
from flythrough.worlds.palettes import (
    BRICK,
    LEAF,
    STONE,
    WOOD,
    mixed,
    scaled,
)
from flythrough.worlds.world import BOX, CONE, CYLINDER, SPHERE, World


def _land(b: SceneBuilder) -> tuple[int, str, tuple[int, str]]:
    """Ground material and word, and the hill material and word."""
    dice = b.dice
    if dice.chance(0.7):
        skin, word = lawn_skin(b, dice.between(2.0, 3.5))
        return skin, word, (skin, "hills")
    stone = dice.pick(STONE)
    base = dice.shade(mixed(stone.rgb, (0.80, 0.66, 0.45), 0.5))
    layer = dice.pick(("sand", "soil", "gravel"))
    skin = b.material(layer, 2.5, (base, scaled(base, 0.75), mixed(base, WHITE, 0.3)), detail=0.5)
    return (
        skin,
        {"sand": "sand", "soil": "bare earth", "gravel": "gravel"}[layer],
        (skin, "dunes" if layer == "sand" else "hills"),
    )


def _horizon(b: SceneBuilder, hill: int) -> list[str]:
    """Near hills as wide ellipsoids sunk in the ground, mountains behind."""
    dice = b.dice
    words = []
    for _ in range(dice.whole(3, 6)):
        angle, away = dice.between(-1.0, 1.0), dice.between(22, 70)
        wide, high = dice.between(0.35, 0.6) * away, dice.between(0.05, 0.16) * away
        b.add(
            SPHERE,
            (away * math.sin(angle), 0.0, away * math.cos(angle) + wide * 0.4),
            (wide, high, wide * dice.between(0.7, 1.2)),
            hill,
            yaw=dice.between(0, 3),
            contact=0.0,
        )
    if dice.chance(0.65):
        stone = dice.pick(STONE)
        rock = b.material(
            "rock",
            38.0,
            (scaled(stone.rgb, 0.85), stone.rgb, mixed(stone.rgb, WHITE, 0.6)),
            detail=0.8,
        )
        for _ in range(dice.whole(3, 6)):
            angle, away = dice.between(-0.9, 0.9), dice.between(120, 240)
            wide, high = dice.between(0.25, 0.5) * away, dice.between(0.10, 0.22) * away
            shape = dice.pick((CONE, SPHERE, CONE))
            x, z = away * math.sin(angle), away * math.cos(angle)
            if shape == CONE:
                b.standing(
                    CONE,
                    x,
                    z,
                    (wide, high / 2, wide * dice.between(0.6, 1.1)),
                    rock,
                    yaw=dice.between(0, 3),
                    contact=0.0,
                )
            else:
                b.add(
                    SPHERE,
                    (x, 0.0, z),
                    (wide, high, wide * 0.8),
                    rock,
                    yaw=dice.between(0, 3),
                    contact=0.0,
                )
        words.append("mountains")
    return words


def _rocks(b: SceneBuilder, count: int) -> str:
    dice = b.dice
    stone = dice.pick(STONE)
    moss = (0.36, 0.40, 0.22)
    skin = b.material(
        "rock", 1.6, (dice.shade(stone.rgb), scaled(stone.rgb, 0.8), moss), detail=0.8
    )
    for _ in range(count):
        angle, away = dice.between(-0.75, 0.75), dice.between(2.8, 17.0)
        size = dice.between(0.2, 0.35) + 0.05 * away * dice.unit()
        half = (
            size * dice.between(0.8, 1.5),
            size * dice.between(0.6, 1.0),
            size * dice.between(0.8, 1.4),
        )
        x, z = away * math.sin(angle), away * math.cos(angle)
        b.add(
            SPHERE,
            (x, -0.35 * half[1], z),
            half,
            skin,
            yaw=dice.between(0, 3),
            pitch=dice.between(-0.3, 0.3),
            roll=dice.between(-0.3, 0.3),
        )
    return f"{stone.name} rocks"


def _path_and_pond(b: SceneBuilder) -> list[str]:
    """Flat things on the ground."""
    dice = b.dice
    words: list[str] = []
    if dice.chance(0.4):
        path = b.material(
            dice.pick(("soil", "gravel")),
            1.6,
            ((0.62, 0.52, 0.38), (0.70, 0.62, 0.50), (0.5, 0.48, 0.44)),
            detail=0.5,
        )
        angle = dice.between(-0.35, 0.35)
        b.standing(
            BOX,
            14 * math.sin(angle),
            14 * math.cos(angle),
            (dice.between(0.7, 1.3), 0.006, 22.0),
            path,
            yaw=angle,
            contact=0.0,
        )
        words.append("a path")
    if dice.chance(0.3):
        angle, away = dice.between(-0.5, 0.5), dice.between(10, 18)
        water = b.material(
            "marble", 6.0, ((0.36, 0.48, 0.55), (0.62, 0.70, 0.74), WHITE), detail=0.3
        )
        b.standing(
            CYLINDER,
            away * math.sin(angle),
            away * math.cos(angle),
            (dice.between(3, 5), 0.012, dice.between(2, 4)),
            water,
            contact=0.0,
        )
        words.append("a pond")
    return words


def _wood(b: SceneBuilder) -> str:
    """Scattered trees of one kind."""
    dice = b.dice
    leaf = dice.pick(LEAF)
    conifer = dice.chance(0.5)
    if conifer:
        leaf = dice.pick(LEAF[:2])
    skins = (bark_skin(b), things.foliage(b, leaf, 1.6))
    word = ""
    for _ in range(dice.whole(4, 11)):
        if b.room_left < 6:
            break
        angle, away = dice.between(-0.85, 0.85), dice.between(6.5, 30)
        word = things.tree(b, away * math.sin(angle), away * math.cos(angle), leaf, skins, conifer)
    return word


def terrain(seed: int) -> World:
    """Open land with hills, rocks, trees and perhaps mountains or a hut."""
    dice = Dice(seed, "terrain")
    b = SceneBuilder(dice)
    skin, ground, (hill, hill_word) = _land(b)
    add_ground(b, skin)
    words = [hill_word, *_horizon(b, hill)]
    words += _path_and_pond(b)
    words.append(_rocks(b, dice.whole(5, 11)))
    if dice.chance(0.35):
        angle = dice.pick((-1, 1)) * dice.between(0.15, 0.5)
        words.append(
            add_hut(b, 14 * math.sin(angle), 14 * math.cos(angle), angle + dice.between(-0.6, 0.6))
        )
    words.append(_wood(b))
    if dice.chance(0.25):
        x, z = dice.between(-1.5, 1.5), dice.between(5.0, 8.0)
        mover = b.mover(
            swing_sin=(dice.between(1, 2), 0.0, 0.0),
            swing_cos=(0.0, 0.0, dice.between(0, 1.5)),
            rate=dice.between(0.6, 1.4),
            phase=dice.between(0, 6),
            spin=dice.between(-1, 1),
            pivot=(x, 0.0, z),
        )
        words.append(things.ball(b, x, z, 0.0, mover) + " rolling")
    yaw = dice.between(-0.25, 0.25)
    weather = outdoor(b, (0.0, 0.0, 10.0), 24.0, yaw)
    caption = f"A landscape {weather} with {ground}, {listed([word for word in words if word])}."
    return b.finish(
        seed,
        "terrain",
        caption,
        (0.0, -dice.between(1.5, 2.1), 0.0),
        yaw,
        dice.between(-0.26, -0.12),
    )


def yard(seed: int) -> World:
    """A fenced yard with a shed wall and many objects on the ground."""
    dice = Dice(seed, "yard")
    b = SceneBuilder(dice)
    if dice.chance(0.6):
        skin, ground = lawn_skin(b)
    else:
        stone = dice.pick(STONE)
        layer = dice.pick(("blocks", "tiles", "gravel", "concrete"))
        base = dice.shade(stone.rgb)
        skin = b.material(layer, 2.4, (base, scaled(base, 0.85), scaled(base, 0.55)), detail=0.5)
        ground = f"{stone.name} paving"
    add_ground(b, skin)
    back, side = dice.between(7.5, 11.0), dice.between(4.0, 6.5)
    tone = dice.pick(WOOD)
    fence = b.wood(dice.shade(tone.rgb), "planks", 1.6)
    height = dice.between(0.75, 1.2)
    b.standing(BOX, -side, back / 2, (0.05, height, back / 2 + 3), fence)
    b.standing(BOX, side, back / 2, (0.05, height, back / 2 + 3), fence)
    words: list[str] = []
    if dice.chance(0.6):
        facade, roof, word = facade_skins(b)
        b.standing(
            BOX,
            dice.between(-2, 2),
            back + 4,
            (side + 3, dice.between(3, 5), 4.0),
            (facade, facade, roof, facade),
            contact=0.3,
        )
        words.append(f"a {word} house behind")
    else:
        brick = dice.pick(BRICK)
        wall = b.material(
            "brick", 1.6, (dice.shade(brick.rgb), scaled(brick.rgb, 0.8), (0.66, 0.63, 0.58))
        )
        b.standing(BOX, 0.0, back + 0.15, (side, dice.between(0.9, 1.5), 0.15), wall)
        words.append(f"a {brick.name} wall")
    leaf = dice.pick(LEAF)
    skins = (bark_skin(b), things.foliage(b, leaf, 1.3))
    for x in (-side + 1.2, side - 1.0)[: dice.whole(0, 2)]:
        words.append(things.tree(b, x, back - dice.between(1.0, 3.0), leaf, skins, conifer=False))
    for _ in range(2):
        b.standing(
            SPHERE,
            dice.between(-1, 1) * side,
            back - 0.4,
            (dice.between(0.5, 1.0), 0.55, 0.5),
            skins[1],
            contact=0.5,
        )
    if dice.chance(0.3):
        words.append(
            add_hut(b, dice.pick((-1, 1)) * (side - 2.3), back - 2.4, dice.between(-0.5, 0.5))
        )
    words += _scattered(b, side, back)
    yaw = dice.between(-0.2, 0.2)
    weather = outdoor(b, (0.0, 0.0, 5.0), 14.0, yaw)
    caption = f"A yard {weather} with {ground}, a {tone.name} fence, {listed(words[:7])}."
    return b.finish(
        seed,
        "yard",
        caption,
        (dice.between(-0.8, 0.8), -dice.between(1.35, 1.7), -0.6),
        yaw,
        dice.between(-0.24, -0.1),
    )


def _scattered(b: SceneBuilder, side: float, back: float) -> list[str]:
    dice = b.dice
    words: list[str] = []
    taken: list[tuple[float, float]] = [(0.0, -0.6)]
    makers = (
        things.crate,
        things.barrel,
        things.ball,
        things.chair,
        things.plant,
        things.table,
        things.crate,
        things.pouf,
    )
    for _ in range(36):
        if b.room_left < 10 or len(b.materials) > 35 or len(words) >= 9:
            break
        x, z = dice.between(-0.8, 0.8) * side, dice.between(2.2, back - 1.2)
        if any(math.hypot(x - px, z - pz) < 1.25 for px, pz in taken):
            continue
        taken.append((x, z))
        if dice.chance(0.12):
            mover = b.mover(
                swing_sin=(dice.between(0.4, 1.0), 0.0, 0.0),
                rate=dice.between(0.8, 1.8),
                phase=dice.between(0, 6),
                spin=dice.between(-1, 1),
                pivot=(x, 0.0, z),
            )
            words.append(things.ball(b, x, z, 0.0, mover) + " rolling")
        else:
            words.append(dice.pick(makers)(b, x, z, dice.between(0, 6)))
    return words
