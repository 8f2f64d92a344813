"""Composite objects: each function adds one object to a scene and returns the words for it."""

from __future__ import annotations

import math

from flythrough.worlds.builder import BLACK, WHITE, SceneBuilder, Vector
from flythrough.worlds.palettes import CAR, FABRIC, LEAF, PAINT, VIVID, WOOD, Colour, mixed, scaled
from flythrough.worlds.world import BOX, CONE, CYLINDER, SPHERE


def _around(x: float, z: float, yaw: float, dx: float, dz: float) -> tuple[float, float]:
    """A point (dx, dz) of an object's own axes in the world."""
    return x + math.cos(yaw) * dx + math.sin(yaw) * dz, z - math.sin(yaw) * dx + math.cos(yaw) * dz


def cloth(b: SceneBuilder, colour: Colour) -> int:
    """A woven material: plain, striped, dotted or plaid."""
    dice = b.dice
    base = dice.shade(colour.rgb)
    kind = dice.pick(("fabric", "fabric", "fabric", "stripes", "dots", "plaid"))
    second = mixed(base, dice.pick(FABRIC).rgb, 0.55)
    tile = dice.between(0.5, 1.0)
    if kind == "fabric":
        return b.material("fabric", tile, (base, scaled(base, 0.7), base))
    return b.material(kind, tile, (base, second, mixed(second, WHITE, 0.6)))


def sofa(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, colour = b.dice, b.dice.pick(FABRIC)
    body = cloth(b, colour)
    width = dice.between(0.75, 1.1)
    for dx, dz, half, above in (
        (0.0, 0.0, (width, 0.14, 0.42), 0.12),
        (0.0, -0.36, (width, 0.36, 0.10), 0.12),
        (-width - 0.09, 0.0, (0.10, 0.28, 0.45), 0.05),
        (width + 0.09, 0.0, (0.10, 0.28, 0.45), 0.05),
    ):
        px, pz = _around(x, z, yaw, dx, dz)
        b.standing(BOX, px, pz, half, body, above=above, yaw=yaw)
    cushion = cloth(b, dice.pick(FABRIC))
    px, pz = _around(x, z, yaw, dice.between(-0.5, 0.5), -0.18)
    b.standing(BOX, px, pz, (0.22, 0.2, 0.07), cushion, above=0.42, yaw=yaw + 0.3)
    return f"a {colour.name} sofa"


def table(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, tone = b.dice, b.dice.pick(WOOD)
    wood = b.wood(dice.shade(tone.rgb))
    width, depth, height = (
        dice.between(0.5, 0.95),
        dice.between(0.35, 0.5),
        dice.between(0.42, 0.76),
    )
    if dice.chance(0.3):
        b.standing(CYLINDER, x, z, (0.06, height / 2, 0.06), wood)
        b.standing(CYLINDER, x, z, (depth + 0.15, 0.02, depth + 0.15), wood, above=height)
        name = f"a round {tone.name} table"
    else:
        for dx in (-1.0, 1.0):
            px, pz = _around(x, z, yaw, dx * (width - 0.08), 0.0)
            b.standing(BOX, px, pz, (0.04, height / 2, depth - 0.08), wood, yaw=yaw)
        b.standing(BOX, x, z, (width, 0.025, depth), wood, above=height, yaw=yaw)
        name = f"a {tone.name} table"
    for _ in range(dice.whole(1, 3)):
        px, pz = _around(x, z, yaw, dice.between(-0.35, 0.35), dice.between(-0.2, 0.2))
        trinket(b, px, pz, height + 0.045)
    return name


def trinket(b: SceneBuilder, x: float, z: float, above: float, scale: float = 1.0) -> str:
    """A small thing on a table: cup, ball, book, bottle, box or cone."""
    dice = b.dice
    colour = dice.pick(VIVID)
    tone = dice.shade(colour.rgb)
    light = mixed(tone, WHITE, 0.5)
    kind = dice.pick(("cup", "ball", "books", "bottle", "box", "cone", "vase"))
    yaw = dice.between(0, 3)
    s = scale * dice.between(0.8, 1.3)
    if kind == "cup":
        skin = b.material(dice.pick(("plaster", "stripes", "dots")), 0.3, (tone, light, light))
        b.standing(CYLINDER, x, z, (0.05 * s, 0.06 * s, 0.05 * s), skin, above=above)
    elif kind == "ball":
        skin = b.material(
            dice.pick(("stripes", "checker", "dots", "marble")), 0.4 * s, (tone, light, WHITE)
        )
        b.standing(SPHERE, x, z, (0.09 * s,) * 3, skin, above=above, yaw=yaw)
    elif kind == "books":
        height = above
        for _ in range(dice.whole(1, 3)):
            cover = b.plain(dice.shade(dice.pick(FABRIC).rgb), "fabric", 0.4)
            b.standing(BOX, x, z, (0.12 * s, 0.02 * s, 0.09 * s), cover, above=height, yaw=yaw)
            height += 0.04 * s
            yaw += dice.between(-0.3, 0.3)
    elif kind == "bottle":
        glass = b.plain(scaled(tone, 0.7), "marble", 0.5)
        b.standing(CYLINDER, x, z, (0.045 * s, 0.11 * s, 0.045 * s), glass, above=above)
        b.standing(CYLINDER, x, z, (0.016 * s, 0.05 * s, 0.016 * s), glass, above=above + 0.22 * s)
    elif kind == "box":
        half = 0.09 * s
        paper = b.material("plaid", 0.3, (tone, light, WHITE))
        front = b.picture(2 * half, 2 * half) if dice.chance(0.5) else paper
        b.standing(
            BOX, x, z, (half, half, half), (front, front, paper, paper), above=above, yaw=yaw
        )
    elif kind == "cone":
        skin = b.material("stripes", (0.3, 0.3), (tone, light, WHITE))
        b.standing(CONE, x, z, (0.07 * s, 0.12 * s, 0.07 * s), skin, above=above)
    else:
        skin = b.material(
            dice.pick(("marble", "wallpaper")), 0.35, (tone, light, scaled(tone, 0.6))
        )
        b.standing(SPHERE, x, z, (0.09 * s, 0.12 * s, 0.09 * s), skin, above=above)
        b.standing(CYLINDER, x, z, (0.04 * s, 0.05 * s, 0.04 * s), skin, above=above + 0.2 * s)
    return "books" if kind == "books" else f"a {colour.name} {kind}"


def shelf(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, tone = b.dice, b.dice.pick(WOOD)
    width, height = dice.between(0.45, 0.8), dice.between(0.8, 1.05)
    side = b.wood(dice.shade(tone.rgb))
    front = b.fitted("shelf", 2 * width, 2 * height, detail=0.05)
    b.standing(BOX, x, z, (width, height, 0.17), (side, front, side, side), yaw=yaw)
    return "a bookshelf"


def cabinet(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, tone = b.dice, b.dice.pick(WOOD)
    base = dice.shade(tone.rgb)
    width, height = dice.between(0.4, 0.8), dice.between(0.35, 0.95)
    side = b.wood(base)
    front = b.fitted("door", 2 * width, 2 * height, (base, scaled(base, 0.6), (0.8, 0.7, 0.4)))
    b.standing(BOX, x, z, (width, height, 0.25), (side, front, side, side), yaw=yaw)
    if height < 0.6:
        trinket(b, x, z, 2 * height, 1.6)
    return f"a {tone.name} cabinet"


def plant(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, colour, leaf = b.dice, b.dice.pick(PAINT), b.dice.pick(LEAF[:3])
    pot = b.plain(dice.shade(colour.rgb), dice.pick(("plaster", "concrete", "stripes")), 0.6)
    green = foliage(b, leaf, 0.6)
    size = dice.between(0.7, 1.1)
    b.standing(CYLINDER, x, z, (0.18 * size, 0.18 * size, 0.18 * size), pot, yaw=yaw)
    for dx, up, radius in ((-0.10, 0.42, 0.20), (0.12, 0.62, 0.22), (0.0, 0.9, 0.19)):
        px, pz = _around(x, z, yaw, dx * size, 0.5 * dx)
        half = (radius * size, 1.2 * radius * size, radius * size)
        b.standing(SPHERE, px, pz, half, green, above=up * size - 0.15)
    return "a potted plant"


def foliage(b: SceneBuilder, leaf: Colour, tile: float) -> int:
    """Leaves in a colour with lighter tips and dark gaps."""
    base = b.dice.shade(leaf.rgb, 0.15)
    base = scaled(base, 1.2)
    light = mixed(base, (0.80, 0.80, 0.40), 0.35)
    return b.material("leaves", tile, (base, light, scaled(base, 0.35)), detail=0.5)


def lamp(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dark = b.plain(BLACK, "metal", 1.0)
    shade = b.material("fabric", 0.5, ((0.98, 0.93, 0.80), (0.95, 0.85, 0.65), WHITE), glow=0.8)
    b.standing(CYLINDER, x, z, (0.16, 0.015, 0.16), dark)
    b.standing(CYLINDER, x, z, (0.015, 0.68, 0.015), dark, above=0.03)
    b.standing(CYLINDER, x, z, (0.19, 0.13, 0.19), shade, above=1.36, contact=0.0, yaw=yaw)
    return "a floor lamp"


def chair(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, colour = b.dice, b.dice.pick(FABRIC)
    seat = cloth(b, colour)
    leg = b.wood(dice.pick(WOOD).rgb)
    b.standing(BOX, x, z, (0.23, 0.035, 0.23), seat, above=0.43, yaw=yaw)
    px, pz = _around(x, z, yaw, 0.0, -0.21)
    b.standing(BOX, px, pz, (0.22, 0.25, 0.025), seat, above=0.5, yaw=yaw)
    for dx in (-0.19, 0.19):
        px, pz = _around(x, z, yaw, dx, 0.0)
        b.standing(BOX, px, pz, (0.02, 0.215, 0.2), leg, yaw=yaw)
    return f"a {colour.name} chair"


def bed(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, colour = b.dice, b.dice.pick(FABRIC)
    frame = b.wood(dice.pick(WOOD).rgb)
    sheet = cloth(b, colour)
    pillow = b.material("fabric", 0.6, (WHITE, WHITE, WHITE))
    b.standing(BOX, x, z, (0.8, 0.15, 1.0), frame, yaw=yaw)
    b.standing(BOX, x, z, (0.78, 0.1, 0.98), sheet, above=0.28, yaw=yaw)
    px, pz = _around(x, z, yaw, 0.0, -1.0)
    b.standing(BOX, px, pz, (0.82, 0.5, 0.04), frame, yaw=yaw)
    for dx in (-0.38, 0.38):
        px, pz = _around(x, z, yaw, dx, -0.7)
        b.standing(SPHERE, px, pz, (0.32, 0.1, 0.2), pillow, above=0.42, yaw=yaw)
    return f"a bed with a {colour.name} cover"


def pouf(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    colour = b.dice.pick(FABRIC)
    size = b.dice.between(0.22, 0.34)
    skin = cloth(b, colour)
    b.standing(CYLINDER, x, z, (size, 0.2, size), skin, yaw=yaw)
    return f"a {colour.name} pouf"


def crate(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    dice, tone = b.dice, b.dice.pick(WOOD[:5])
    size = dice.between(0.22, 0.5)
    wood = b.wood(dice.shade(tone.rgb), "planks", 2 * size)
    b.standing(BOX, x, z, (size, size, size), wood, yaw=yaw)
    if dice.chance(0.4):
        small = size * dice.between(0.5, 0.8)
        b.standing(BOX, x, z, (small, small, small), wood, above=2 * size, yaw=yaw + 0.5)
    return "a wooden crate"


def barrel(b: SceneBuilder, x: float, z: float, yaw: float) -> str:
    colour = b.dice.pick(VIVID)
    tone = b.dice.shade(colour.rgb)
    skin = b.material("metal", 0.9, (tone, (0.45, 0.27, 0.16), scaled(tone, 0.5)))
    b.standing(CYLINDER, x, z, (0.29, 0.44, 0.29), skin, yaw=yaw)
    return f"a {colour.name} barrel"


def ball(b: SceneBuilder, x: float, z: float, yaw: float, mover: int = -1) -> str:
    colour, radius = b.dice.pick(VIVID), b.dice.between(0.18, 0.4)
    skin = b.material(
        b.dice.pick(("stripes", "checker", "dots")),
        (radius * 3.1416, radius * 2),
        (b.dice.shade(colour.rgb), WHITE, mixed(colour.rgb, BLACK, 0.4)),
    )
    b.standing(SPHERE, x, z, (radius,) * 3, skin, yaw=yaw, mover=mover)
    return f"a {colour.name} ball"


def car(b: SceneBuilder, x: float, z: float, yaw: float, mover: int = -1) -> str:
    dice, colour = b.dice, b.dice.pick(CAR)
    paint = b.material("plaster", 2.0, (dice.shade(colour.rgb), WHITE, BLACK), detail=0.1)
    coats = (dice.shade(colour.rgb), (0.36, 0.44, 0.50), (0.95, 0.90, 0.78))
    height = dice.between(0.30, 0.42)
    side = b.fitted("car side", 4.1, 2 * height, coats, detail=0.08)
    end = b.fitted("car end", 1.7, 2 * height, coats, detail=0.08)
    glass = b.fitted("car windows", 2.3, 0.56, coats, detail=0.05)
    screen = b.fitted("car screen", 1.48, 0.56, coats, detail=0.05)
    tyre = b.plain((0.09, 0.09, 0.09), "asphalt", 0.5)
    b.standing(
        BOX, x, z, (0.85, height, 2.05), (side, end, paint, paint), above=0.28, yaw=yaw, mover=mover
    )
    px, pz = _around(x, z, yaw, 0.0, -0.25)
    b.standing(
        BOX,
        px,
        pz,
        (0.74, 0.28, 1.15),
        (glass, screen, paint, paint),
        above=0.28 + 2 * height,
        yaw=yaw,
        mover=mover,
        contact=0.1,
    )
    for dz in (-1.25, 1.3):
        px, pz = _around(x, z, yaw, 0.0, dz)
        b.add(
            CYLINDER,
            (px, -0.33, pz),
            (0.33, 0.87, 0.33),
            tyre,
            yaw=yaw,
            roll=math.pi / 2,
            mover=mover,
        )
    return f"a {colour.name} car"


def tree(
    b: SceneBuilder, x: float, z: float, leaf: Colour, skins: tuple[int, int], conifer: bool
) -> str:
    """A tree of trunk and crown; ``skins`` are the bark and leaf materials."""
    dice = b.dice
    if conifer:
        height = dice.between(3.0, 6.5)
        b.standing(CYLINDER, x, z, (0.13, 0.6, 0.13), skins[0])
        for level, (wide, tall) in enumerate(((0.24, 0.28), (0.17, 0.26))):
            half: Vector = (wide * height, tall * height, wide * height)
            b.standing(
                CONE,
                x,
                z,
                half,
                skins[1],
                above=0.8 + level * 0.30 * height,
                yaw=level,
                contact=0.35,
            )
        return "conifers"
    height, size = dice.between(1.6, 2.6), dice.between(0.9, 1.5)
    b.standing(CYLINDER, x, z, (0.14, 0.5 * height + 0.3, 0.14), skins[0])
    for _ in range(3):
        half = (
            size * dice.between(0.6, 1.0),
            size * dice.between(0.55, 0.85),
            size * dice.between(0.6, 1.0),
        )
        dx, dz = dice.between(-0.6, 0.6) * size, dice.between(-0.6, 0.6) * size
        b.standing(
            SPHERE,
            x + dx,
            z + dz,
            half,
            skins[1],
            above=height + dice.between(-0.4, 0.5) * size,
            yaw=dice.between(0, 6),
            contact=0.35,
        )
    return f"{leaf.name} trees"
