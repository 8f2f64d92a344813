"""Gallery halls with pictures, columns and sculptures."""

from __future__ import annotations

import math

from flythrough.worlds.builder import BLACK, WHITE, Dice, SceneBuilder
from flythrough.worlds.halls import Hall, hang, listed, make_hall
from flythrough.worlds.light import indoor
from flythrough.worlds.palettes import (
    STONE,
    VIVID,
    WOOD,
    scaled,
)
from flythrough.worlds.rooms import rolling
from flythrough.worlds.world import BOX, CONE, CYLINDER, SPHERE, World


def _sculpture(b: SceneBuilder, x: float, z: float) -> str:
    dice = b.dice
    stone = dice.pick(STONE)
    base = b.plain(WHITE, "plaster", 1.0)
    skin = b.material(
        dice.pick(("marble", "rock", "metal", "mosaic")),
        0.8,
        (dice.shade(stone.rgb), dice.pick(VIVID).rgb, scaled(stone.rgb, 0.5)),
    )
    b.standing(BOX, x, z, (0.3, 0.4, 0.3), base, yaw=dice.between(0, 1))
    kind = dice.pick(("sphere", "cone", "stack", "column"))
    if kind == "sphere":
        b.standing(SPHERE, x, z, (0.3, 0.3, 0.3), skin, above=0.8)
    elif kind == "cone":
        b.standing(CONE, x, z, (0.26, 0.45, 0.26), skin, above=0.8)
    elif kind == "stack":
        for level in range(3):
            size = 0.22 - 0.05 * level
            b.standing(
                BOX,
                x,
                z,
                (size, 0.16, size),
                skin,
                above=0.8 + 0.32 * level,
                yaw=dice.between(0, 1.5),
            )
    else:
        b.standing(SPHERE, x, z, (0.16, 0.45, 0.16), skin, above=0.8)
        b.standing(SPHERE, x, z, (0.14, 0.14, 0.14), skin, above=1.65)
    return f"a {stone.name} sculpture"


def _pictures(b: SceneBuilder, hall: Hall) -> None:
    """Rows of pictures on the side walls and two on the far wall."""
    dice = b.dice
    rim = b.plain(dice.pick((BLACK, WOOD[0].rgb, WHITE)), "wood", 1.0)
    step = dice.between(1.9, 2.6)
    for wall in ("left", "right"):
        along = -hall.along + 1.4
        while along < hall.along - 0.8 and b.room_left > 22:
            width, height = dice.between(0.45, 0.85), dice.between(0.5, 0.9)
            hang(
                b,
                hall,
                wall,
                along,
                dice.between(1.5, 1.75),
                (width, height),
                b.picture(2 * width, 2 * height),
                rim,
            )
            along += step + dice.between(-0.2, 0.3)
    for place in (-0.45, 0.45):
        width, height = dice.between(0.6, 1.1), dice.between(0.6, 1.0)
        hang(
            b,
            hall,
            "far",
            place * hall.across,
            1.7,
            (width, height),
            b.picture(2 * width, 2 * height),
            rim,
        )


def _columns(b: SceneBuilder, hall: Hall) -> list[str]:
    """Two rows of columns in two halls of three."""
    dice = b.dice
    stone = dice.pick(STONE)
    if dice.chance(0.65):
        skin = b.material(
            dice.pick(("marble", "concrete", "plaster")),
            1.2,
            (stone.rgb, scaled(stone.rgb, 0.6), stone.rgb),
        )
        radius, column_x = dice.between(0.18, 0.3), hall.across * dice.between(0.5, 0.62)
        for z in (-0.35, 0.15, 0.65):
            for side in (-1, 1):
                b.standing(
                    CYLINDER,
                    side * column_x,
                    z * hall.along,
                    (radius, hall.height / 2, radius),
                    skin,
                    contact=0.3,
                )
        return [f"{stone.name} columns"]
    return []


def gallery(seed: int) -> World:
    """A long hall with pictures on both sides, columns, benches and sculptures."""
    dice = Dice(seed, "gallery")
    b = SceneBuilder(dice)
    hall = make_hall(b, dice.between(3.0, 5.0), dice.between(3.4, 4.8), dice.between(6.0, 9.5))
    _pictures(b, hall)
    words = ["pictures on the walls", *_columns(b, hall)]
    eye_x, eye_z = dice.between(-0.3, 0.3) * hall.across, dice.between(0.8, 1.8) - hall.along
    for _ in range(dice.whole(1, 3)):
        z = dice.between(-0.25, 0.8) * hall.along
        if dice.chance(0.6):
            words.append(_sculpture(b, dice.between(-0.35, 0.35) * hall.across, z))
        else:
            wood = b.wood(dice.pick(WOOD).rgb)
            b.standing(BOX, dice.between(-0.3, 0.3) * hall.across, z, (0.3, 0.22, 0.8), wood)
            words.append("a bench")
    if dice.chance(0.25):
        words.append(rolling(b, dice.between(-1.0, 1.0), dice.between(-1.0, 2.0)))
    glow = b.material("plaster", 1.0, (WHITE, WHITE, WHITE), glow=1.0, detail=0.0)
    for z in (-0.5, 0.0, 0.5):
        b.add(BOX, (0.0, -hall.height, z * hall.along), (0.9, 0.02, 0.5), glow, contact=0.0)
    indoor(
        b,
        (dice.between(-0.5, 0.5), -hall.height + 0.15, 0.0),
        (0.0, 0.0, 0.2),
        hall.paint.rgb,
        dice.between(6.0, 9.0),
    )
    caption = f"A gallery with {hall.paint.name} walls, {hall.floor}, {listed(words)}."
    yaw = -0.4 * math.atan2(eye_x, 5.0) + dice.between(-0.28, 0.28)
    return b.finish(
        seed,
        "gallery",
        caption,
        (eye_x, -dice.between(1.4, 1.75), eye_z),
        yaw,
        dice.between(-0.10, 0.05),
    )
