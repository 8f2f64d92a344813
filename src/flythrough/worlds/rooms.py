"""Furnished rooms and table tops full of objects."""

from __future__ import annotations

import math

from flythrough.worlds import furniture as things
from flythrough.worlds.builder import WHITE, Dice, SceneBuilder
from flythrough.worlds.halls import Hall, decorate, listed, make_hall
from flythrough.worlds.light import indoor
from flythrough.worlds.palettes import (
    FABRIC,
    VIVID,
    WOOD,
    mixed,
)
from flythrough.worlds.world import BOX, SPHERE, World


def _furnish(b: SceneBuilder, hall: Hall, eye: tuple[float, float]) -> list[str]:
    """Furniture along the walls and in the middle, clear of the camera and of each other."""
    dice = b.dice
    by_wall = (things.sofa, things.shelf, things.cabinet, things.plant, things.lamp, things.bed)
    inside = (things.table, things.chair, things.pouf, things.crate, things.table, things.sofa)
    taken: list[tuple[float, float, float]] = [(eye[0], eye[1], 1.1)]
    words: list[str] = []
    for _ in range(26):
        if b.room_left < 9 or len(words) >= 9:
            break
        wall = dice.chance(0.6)
        make = dice.pick(by_wall if wall else inside)
        radius = {
            things.sofa: 1.15,
            things.bed: 1.2,
            things.table: 0.9,
            things.shelf: 0.7,
            things.cabinet: 0.7,
        }.get(make, 0.42)
        yaw = dice.between(-0.5, 0.5) + dice.pick((0.0, math.pi / 2, math.pi, -math.pi / 2))
        if wall:
            yaw = dice.pick((math.pi / 2, -math.pi / 2, math.pi, math.pi))
            gap = (
                1.05
                if make is things.bed
                else 0.32
                if make in (things.shelf, things.cabinet)
                else 0.52
            )
            x = dice.between(-1, 1) * (hall.across - radius)
            z = dice.between(-0.6, 1) * (hall.along - radius)
            if yaw == math.pi:
                z = hall.along - gap
            else:
                x = (gap - hall.across) if yaw > 0 else (hall.across - gap)
        else:
            x = dice.between(-1, 1) * (hall.across - radius)
            z = dice.between(-0.5, 0.85) * (hall.along - radius)
        if any(math.hypot(x - px, z - pz) < radius + pr for px, pz, pr in taken):
            continue
        if abs(x) > hall.across - 0.2 or abs(z) > hall.along - 0.2:
            continue
        taken.append((x, z, radius))
        words.append(make(b, x, z, yaw))
    return words


def rolling(b: SceneBuilder, x: float, z: float) -> str:
    """A ball or toy car that swings to and fro."""
    dice = b.dice
    angle, size = dice.between(0, math.pi), dice.between(0.3, 0.8)
    swing = (size * math.cos(angle), 0.0, size * math.sin(angle))
    round_ = (-0.6 * swing[2], 0.0, 0.6 * swing[0]) if dice.chance(0.5) else (0.0, 0.0, 0.0)
    mover = b.mover(
        swing_sin=swing, swing_cos=round_, rate=dice.between(0.8, 2.0), phase=dice.between(0, 6),
        spin=dice.between(-1.0, 1.0), pivot=(x, 0.0, z),
    )  # fmt: skip
    return things.ball(b, x, z, 0.0, mover) + " that moves"


def room(seed: int) -> World:
    """A furnished room with windows, pictures and a lamp."""
    dice = Dice(seed, "room")
    b = SceneBuilder(dice)
    hall = make_hall(b, dice.between(2.2, 3.8), dice.between(2.5, 3.1), dice.between(2.9, 4.6))
    eye_x, eye_z = dice.between(-0.35, 0.35) * hall.across, dice.between(0.5, 1.0) - hall.along
    words = decorate(b, hall)
    if dice.chance(0.6):
        colour = dice.pick(FABRIC)
        half = (dice.between(0.8, 1.3), dice.between(0.9, 1.5))
        ornament = mixed(colour.rgb, WHITE, 0.6)
        skin = b.material(
            "rug",
            (2 * half[0], 2 * half[1]),
            (dice.shade(colour.rgb), ornament, dice.pick(FABRIC).rgb),
            offset=(0.5, 0.5),
        )
        b.standing(
            BOX,
            dice.between(-0.3, 0.3),
            dice.between(-0.2, 0.8),
            (half[0], 0.008, half[1]),
            skin,
            yaw=dice.between(-0.2, 0.2),
            contact=0.0,
        )
        words.append(f"a {colour.name} rug")
    furniture = _furnish(b, hall, (eye_x, eye_z))
    if dice.chance(0.3):
        furniture.append(rolling(b, dice.between(-0.8, 0.8), dice.between(0.0, 1.5)))
    shade = b.material("fabric", 0.5, (WHITE, (1.0, 0.95, 0.8), WHITE), glow=0.9)
    b.add(SPHERE, (0.0, -hall.height + 0.16, 0.3), (0.2, 0.12, 0.2), shade, contact=0.0)
    if dice.chance(0.5):
        lamp = (0.0, -hall.height + 0.34, 0.3)
    else:
        lamp = (
            dice.pick((-1.0, 1.0)) * (hall.across - 0.25),
            -hall.height + 0.7,
            dice.between(-0.5, 0.6) * hall.along,
        )
    indoor(b, lamp, (-0.25 * lamp[0], 0.0, 0.5), hall.paint.rgb, dice.between(3.2, 5.0))
    caption = (
        f"A room with {hall.paint.name} walls, {hall.floor}, {listed(furniture[:4] + words[:3])}."
    )
    yaw = -0.5 * math.atan2(eye_x, 3.0) + dice.between(-0.3, 0.3)
    return b.finish(
        seed,
        "room",
        caption,
        (eye_x, -dice.between(1.25, 1.65), eye_z),
        yaw,
        dice.between(-0.18, -0.02),
    )


def _rolling_on_table(b: SceneBuilder, z: float, above: float, reach: float) -> str:
    """A small ball that swings along the table."""
    dice, colour = b.dice, b.dice.pick(VIVID)
    skin = b.material("checker", 0.3, (colour.rgb, mixed(colour.rgb, WHITE, 0.7), WHITE))
    mover = b.mover(
        swing_sin=(dice.between(0.3, 1.0) * reach, 0.0, 0.0),
        rate=dice.between(0.8, 1.6),
        phase=dice.between(0, 6),
        spin=dice.between(-1, 1),
        pivot=(0.0, 0.0, z),
    )
    b.standing(SPHERE, 0.0, z, (0.11, 0.11, 0.11), skin, above=above, mover=mover)
    return f"a {colour.name} ball that rolls"


def table(seed: int) -> World:
    """A large table full of objects in a room."""
    dice = Dice(seed, "table")
    b = SceneBuilder(dice)
    hall = make_hall(b, dice.between(2.6, 3.4), 2.8, dice.between(2.8, 3.6))
    decorate(b, hall)
    tone = dice.pick((*WOOD[:2], *WOOD))
    wood = b.wood(dice.shade(tone.rgb), dice.pick(("wood", "planks", "parquet")), 0.9)
    width, depth, height = dice.between(1.1, 1.6), dice.between(0.65, 0.95), 0.74
    middle = dice.between(0.1, 0.5)
    b.standing(BOX, 0.0, middle, (width, 0.03, depth), wood, above=height - 0.06)
    for side in (-1, 1):
        b.standing(
            BOX, side * (width - 0.12), middle, (0.06, height / 2 - 0.03, depth - 0.12), wood
        )
    words: list[str] = []
    taken: list[tuple[float, float]] = []
    for _ in range(40):
        if b.room_left < 6 or len(b.materials) > 36 or len(words) >= 13:
            break
        x, z = dice.between(-0.85, 0.85) * width, middle + dice.between(-0.8, 0.8) * depth
        if any(math.hypot(x - px, z - pz) < 0.28 for px, pz in taken):
            continue
        taken.append((x, z))
        words.append(things.trinket(b, x, z, height, dice.between(1.1, 1.9)))
    if dice.chance(0.3):
        words.insert(0, _rolling_on_table(b, middle, height, 0.4 * width))
    lamp = (dice.between(-0.8, 0.8), -hall.height + 0.3, dice.between(-0.5, 0.5))
    indoor(b, lamp, (0.0, 0.0, middle), hall.paint.rgb, dice.between(3.0, 4.5))
    caption = (
        f"A {tone.name} table with {listed(words[:6])}, in a room with {hall.paint.name} walls."
    )
    away = dice.between(1.5, 2.1)
    eye = (
        dice.between(-0.7, 0.7),
        -dice.between(1.25, 1.6),
        max(middle - depth - away, 0.35 - hall.along),
    )
    yaw = math.atan2(-eye[0], middle - eye[2]) + dice.between(-0.12, 0.12)
    return b.finish(seed, "table", caption, eye, yaw, dice.between(-0.30, -0.18))
