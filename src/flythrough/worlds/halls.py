"""Box interiors: walls, floor, ceiling, and what hangs on the walls."""

from __future__ import annotations

from dataclasses import dataclass

from flythrough.worlds.builder import BLACK, WHITE, SceneBuilder
from flythrough.worlds.palettes import (
    BRICK,
    FABRIC,
    PAINT,
    STONE,
    WOOD,
    Colour,
    mixed,
    scaled,
)
from flythrough.worlds.world import BOX, ROOM


@dataclass(frozen=True)
class Hall:
    """A box interior: half width, height, half length in metres, and its wall paint."""

    across: float
    height: float
    along: float
    paint: Colour
    floor: str


def listed(words: list[str]) -> str:
    """Join names for a caption: "a, b and c", repeats dropped."""
    seen = list(dict.fromkeys(words))
    if len(seen) < 2:
        return "".join(seen)
    return ", ".join(seen[:-1]) + " and " + seen[-1]


def _walls(b: SceneBuilder, paint: Colour) -> tuple[int, int]:
    """Materials of the side walls and the end walls (one may be an accent)."""
    dice = b.dice
    base = dice.shade(paint.rgb, 0.05)
    kind = dice.pick(("plaster", "plaster", "wallpaper", "stripes", "brick", "wood"))
    light = mixed(base, WHITE, 0.35)
    if kind == "plaster":
        side = b.material("plaster", 2.4, (base, light, base), detail=0.18)
    elif kind == "brick":
        tone = dice.pick(BRICK).rgb
        side = b.material(
            "brick", 1.4, (mixed(tone, base, 0.3), scaled(tone, 0.8), mixed(tone, WHITE, 0.6))
        )
    elif kind == "wood":
        side = b.wood(dice.pick(WOOD).rgb, "planks", 1.8)
    else:
        tile = dice.between(0.5, 1.1)
        side = b.material(
            kind, tile, (base, mixed(base, dice.pick(FABRIC).rgb, 0.3), light), detail=0.12
        )
    if dice.chance(0.5):
        other = dice.pick(PAINT).rgb
        end = b.material("plaster", 2.0, (other, mixed(other, WHITE, 0.3), other), detail=0.18)
        return (side, end) if dice.chance(0.5) else (end, side)
    return side, side


def _floor(b: SceneBuilder) -> tuple[int, str]:
    dice = b.dice
    kind = dice.pick(("planks", "planks", "parquet", "tiles", "checker", "fabric", "concrete"))
    if kind in ("planks", "parquet"):
        tone = dice.pick(WOOD[:6])
        return b.wood(
            dice.shade(tone.rgb), kind, dice.between(1.4, 2.2)
        ), f"{tone.name} {kind.rstrip('s')} floor"
    if kind == "fabric":
        colour = dice.pick(FABRIC)
        base = dice.shade(colour.rgb)
        return b.material(
            "fabric", 0.9, (base, scaled(base, 0.7), base), detail=0.4
        ), f"{colour.name} carpet"
    stone = dice.pick(STONE)
    base = dice.shade(stone.rgb)
    colours = (base, mixed(base, WHITE, 0.5), scaled(base, 0.55))
    if kind == "checker":
        colours = (scaled(base, 0.45), mixed(base, WHITE, 0.6), scaled(base, 0.4))
    names = {"tiles": "tiled floor", "checker": "checkered floor", "concrete": "concrete floor"}
    return b.material(kind, dice.between(1.5, 2.6), colours), names[kind]


def make_hall(b: SceneBuilder, across: float, height: float, along: float) -> Hall:
    paint = b.dice.pick(PAINT)
    side, end = _walls(b, paint)
    floor, floor_name = _floor(b)
    ceiling = b.material("plaster", 3.0, (WHITE, WHITE, WHITE), detail=0.1)
    b.add(
        ROOM,
        (0.0, -height / 2, 0.0),
        (across, height / 2, along),
        (side, end, ceiling, floor),
        contact=0.38,
    )
    skirting = b.plain(b.dice.pick((WHITE, WHITE, WOOD[2].rgb)), "wood", 1.0)
    for x in (-across, across):
        b.standing(BOX, x, 0.0, (0.02, 0.05, along), skirting, contact=0.2)
    b.standing(BOX, 0.0, along, (across, 0.05, 0.02), skirting, contact=0.2)
    return Hall(across, height, along, paint, floor_name)


def hang(
    b: SceneBuilder,
    hall: Hall,
    wall: str,
    along: float,
    up: float,
    half: tuple[float, float],
    skin: int,
    rim: int,
) -> None:
    """A thin panel on the wall left, right or far, at ``along``, centre ``up`` metres high."""
    width, height = half
    if wall == "far":
        b.add(
            BOX, (along, -up, hall.along), (width, height, 0.03), (rim, skin, rim, rim), contact=0.0
        )
    else:
        x = -hall.across if wall == "left" else hall.across
        b.add(BOX, (x, -up, along), (0.03, height, width), (skin, rim, rim, rim), contact=0.0)


def decorate(b: SceneBuilder, hall: Hall) -> list[str]:
    """Windows, pictures and a door; returns their words."""
    dice = b.dice
    rim = b.plain(dice.pick((WHITE, BLACK, WOOD[0].rgb)), "wood", 1.0)
    words: list[str] = []
    spots = [("left", p) for p in (-0.35, 0.1, 0.6)] + [("right", p) for p in (-0.35, 0.1, 0.6)]
    spots += [("far", p) for p in (-0.55, 0.0, 0.55)]
    for wall, place in dice.shuffled(spots)[: dice.whole(5, 8)]:
        span = hall.across if wall == "far" else hall.along
        along = place * span + dice.between(-0.2, 0.2)
        kind = dice.pick(("window", "window", "picture", "picture", "picture", "door"))
        if kind == "window":
            width, height = dice.between(0.45, 0.8), dice.between(0.5, 0.7)
            view = b.fitted("window", 2 * width, 2 * height, glow=0.85, detail=0.0)
            hang(b, hall, wall, along, dice.between(1.4, 1.6), (width, height), view, rim)
            words.append("a window")
        elif kind == "door":
            colour = dice.pick(WOOD).rgb
            skin = b.fitted("door", 0.9, 2.05, (colour, scaled(colour, 0.65), (0.85, 0.75, 0.45)))
            hang(b, hall, wall, along, 1.03, (0.45, 1.03), skin, rim)
            words.append("a door")
        else:
            width, height = dice.between(0.25, 0.6), dice.between(0.25, 0.5)
            hang(
                b,
                hall,
                wall,
                along,
                dice.between(1.45, 1.7),
                (width, height),
                b.picture(2 * width, 2 * height),
                rim,
            )
            words.append("pictures")
    return words
