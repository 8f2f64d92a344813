"""Tileable surface patterns from which every material is mixed: noise, brick, wood, tiles, leaves.

A pattern is a picture of three *weights*: a material adds its three colours in these proportions
(see :mod:`flythrough.worlds.textures`). Mixing is linear, so averaging a pattern over a pixel and
averaging the finished surface are the same thing, which is what makes its mip levels exact.
All patterns repeat seamlessly and are drawn from fixed seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flythrough.worlds.noise import cells_of, fractal, grid, lattice, nearest_points, noise, step


def _weights(a: Tensor | float, b: Tensor | float = 0.0, c: Tensor | float = 0.0) -> Tensor:
    zero = torch.zeros_like(grid()[0])
    return torch.stack((a + zero, b + zero, c + zero))


def _masonry(columns: int, rows: int, joint: float, shift: float, name: str) -> Tensor:
    x, y = grid()
    column, row, fx, fy = cells_of(x, y, columns, rows, shift)
    aspect = rows / columns
    edge = torch.minimum(torch.minimum(fx, 1 - fx) * aspect, torch.minimum(fy, 1 - fy))
    edge = edge + 0.35 * joint * (fractal(16, 3, name + "rough") - 0.5)
    face = step(joint, edge, joint * 0.35)
    tone = lattice(columns, rows, name)[row, column]
    second = lattice(columns, rows, name + "second")[row, column]
    grain = 0.72 + 0.3 * fractal(24, 3, name + "grain") + 0.35 * (tone - 0.5)
    bevel = 0.85 + 0.15 * step(joint * 2.2, edge, joint)
    other = step(0.72, second, 0.1)
    return _weights(face * grain * bevel * (1 - other), face * grain * bevel * other, 1 - face)


def plaster() -> Tensor:
    blotch = fractal(3, 5, "plaster")
    fine = fractal(40, 2, "plaster fine")
    return _weights(0.80 + 0.16 * blotch + 0.10 * (fine - 0.5), 0.10 * step(0.6, blotch, 0.2))


def concrete() -> Tensor:
    x, y = grid()
    stain = fractal(4, 5, "concrete")
    pores = step(0.80, noise(90, 90, "pores"), 0.05)
    seam = torch.minimum((x * 2) % 1, (y * 2) % 1)
    line = 1 - step(0.012, seam, 0.008)
    base = 0.72 + 0.36 * (stain - 0.3)
    return _weights(base * (1 - 0.35 * pores) * (1 - 0.45 * line), 0.18 * stain * (1 - line))


def brick() -> Tensor:
    return _masonry(6, 16, 0.07, 0.5, "brick")


def blocks() -> Tensor:
    return _masonry(4, 6, 0.05, 0.5, "blocks")


def tiles() -> Tensor:
    return _masonry(4, 4, 0.03, 0.0, "tiles")


def mosaic() -> Tensor:
    return _masonry(16, 16, 0.09, 0.0, "mosaic")


def checker() -> Tensor:
    x, y = grid()
    column, row, fx, fy = cells_of(x, y, 4, 4)
    odd = ((column + row) % 2).float()
    edge = torch.minimum(torch.minimum(fx, 1 - fx), torch.minimum(fy, 1 - fy))
    face = step(0.015, edge, 0.01)
    vein = 0.8 + 0.25 * fractal(5, 5, "checker")
    return _weights(face * odd * vein, face * (1 - odd) * vein, 1 - face)


def _grain(name: str, along: int = 2, across: int = 36) -> Tensor:
    broad = noise(along, across // 3, name)
    fine = noise(along * 3, across * 3, name + "fine")
    return 0.5 * broad + 0.3 * noise(along * 2, across, name + "mid") + 0.2 * fine


def planks() -> Tensor:
    x, y = grid()
    row = (y * 8).floor().long()
    shift = lattice(1, 8, "plank shift")[:, 0][row]
    along = (x * 2 + shift) % 2
    column = along.floor().long()
    fx, fy = along - column, y * 8 - row
    edge = torch.minimum(torch.minimum(fx, 1 - fx) * 4, torch.minimum(fy, 1 - fy))
    face = step(0.03, edge, 0.02)
    tone = lattice(2, 8, "plank tone")[row, column]
    grain = _grain("plank")
    value = 0.55 + 0.5 * grain + 0.34 * (tone - 0.5)
    dark = step(0.62, grain, 0.12)
    return _weights(face * value * (1 - 0.6 * dark), face * value * 0.6 * dark, 1 - face)


def parquet() -> Tensor:
    x, y = grid()
    column, row, fx, fy = cells_of(x, y, 4, 4)
    turned = (column + row) % 2 == 0
    across = torch.where(turned, fy, fx) * 4
    end = torch.where(turned, fx, fy)
    slat = across.floor().long().clamp(0, 3)
    edge = torch.minimum((across - slat).minimum(slat + 1 - across) * 0.25, end.minimum(1 - end))
    face = step(0.012, edge, 0.01)
    tone = lattice(16, 4, "parquet")[row, column * 4 + slat]
    grain = torch.where(turned, _grain("parquet"), _grain("parquet").T)
    value = 0.6 + 0.4 * grain + 0.4 * (tone - 0.5)
    return _weights(face * value * 0.75, face * value * 0.3 * grain, 1 - face)


def wood() -> Tensor:
    x, y = grid()
    bend = fractal(2, 3, "wood bend") * 0.55
    knots = nearest_points(2, "knots")[0]
    rings = torch.sin(2 * math.pi * (y * 9 + bend * 6 + 1.5 * torch.exp(-knots * 14)))
    grain = _grain("wood", 2, 60)
    dark = 0.5 + 0.5 * rings
    del x
    return _weights((0.72 + 0.34 * grain) * (1 - 0.55 * dark), (0.66 + 0.3 * grain) * 0.55 * dark)


def stripes() -> Tensor:
    x, _ = grid()
    phase = (x * 6) % 1
    band = step(0.5, phase, 0.02) * (1 - step(0.97, phase, 0.02))
    thin = step(0.20, phase, 0.015) * (1 - step(0.27, phase, 0.015))
    cloth = 0.9 + 0.16 * (fractal(32, 2, "stripes") - 0.5)
    return _weights(cloth * (1 - band - thin), cloth * band, cloth * thin)


def dots() -> Tensor:
    x, y = grid()
    column, row, fx, fy = cells_of(x, y, 6, 6, 0.5)
    size = 0.18 + 0.16 * lattice(6, 6, "dot size")[row, column]
    inside = 1 - step(0.0, ((fx - 0.5) ** 2 + (fy - 0.5) ** 2).sqrt() - size, 0.02)
    other = step(0.55, lattice(6, 6, "dot kind")[row, column], 0.01)
    cloth = 0.92 + 0.14 * (fractal(30, 2, "dots") - 0.5)
    return _weights(cloth * (1 - inside), cloth * inside * (1 - other), cloth * inside * other)


def plaid() -> Tensor:
    x, y = grid()
    first = 0.5 * step(0.5, (x * 3) % 1, 0.02) + 0.5 * step(0.5, (y * 3) % 1, 0.02)
    line = torch.maximum(
        step(0.90, (x * 3 + 0.2) % 1, 0.02) * (1 - step(0.97, (x * 3 + 0.2) % 1, 0.02)),
        step(0.90, (y * 3 + 0.2) % 1, 0.02) * (1 - step(0.97, (y * 3 + 0.2) % 1, 0.02)),
    )
    weave = 0.88 + 0.2 * (noise(120, 120, "weave") - 0.5)
    return _weights(weave * (1 - first) * (1 - line), weave * first * (1 - line), weave * line)


def grass() -> Tensor:
    patch = fractal(3, 4, "grass patch")
    blades = 0.6 * noise(64, 22, "blades") + 0.4 * noise(128, 60, "blades fine")
    dry = step(0.62, fractal(6, 4, "grass dry"), 0.12)
    value = 0.45 + 0.75 * blades * (0.7 + 0.5 * patch)
    return _weights(value * (1 - 0.75 * dry), value * 0.75 * dry, 0.30 * step(0.66, blades, 0.1))


def soil() -> Tensor:
    first, second, index = nearest_points(9, "stones")
    stone = step(0.012, second - first, 0.01) * (lattice(81, 1, "stone")[0][index] > 0.72)
    value = 0.6 + 0.5 * fractal(6, 5, "soil")
    return _weights(value * (1 - stone), 0.2 * fractal(4, 3, "soil b"), stone * (0.6 + 0.5 * value))


def gravel() -> Tensor:
    first, second, index = nearest_points(15, "gravel")
    tone = lattice(225, 1, "gravel")[0][index]
    edge = step(0.008, second - first, 0.008)
    value = (0.5 + 0.7 * tone) * (0.55 + 0.45 * edge) * (1.1 - 5 * first)
    kind = step(0.66, lattice(225, 1, "gravel kind")[0][index], 0.02)
    return _weights(value * (1 - kind), value * kind)


def asphalt() -> Tensor:
    grit = 0.6 * noise(110, 110, "grit") + 0.4 * noise(200, 200, "grit fine")
    crack = (fractal(4, 5, "crack") - 0.5).abs()
    line = 1 - step(0.008, crack, 0.006)
    patch = fractal(3, 3, "asphalt")
    value = (0.62 + 0.5 * grit + 0.35 * (patch - 0.5)) * (1 - 0.4 * line)
    return _weights(value, 0.35 * step(0.86, noise(150, 150, "chips"), 0.05))


def rock() -> Tensor:
    ridge = 1 - (2 * fractal(4, 6, "rock", 0.62) - 1).abs()
    strata = fractal(3, 4, "strata", stretch=1)
    moss = step(0.64, fractal(5, 4, "moss"), 0.1)
    value = 0.35 + 0.75 * ridge * (0.6 + 0.6 * strata)
    return _weights(value * (1 - moss), 0.5 * value * strata, moss * (0.5 + 0.5 * ridge))


def sand() -> Tensor:
    _, y = grid()
    bend = fractal(3, 3, "sand bend")
    ripple = 0.5 + 0.5 * torch.sin(2 * math.pi * (y * 14 + bend * 5))
    fine = noise(180, 180, "sand fine")
    return _weights(0.72 + 0.16 * ripple + 0.18 * fine, 0.14 * fractal(4, 4, "sand b"))


def leaves() -> Tensor:
    total = _weights(0.0)
    for layer, (points, shade) in enumerate(((11, 0.45), (14, 0.8), (16, 1.1))):
        first, second, index = nearest_points(points, f"leaves{layer}")
        kind = lattice(points * points, 1, f"leaf kind{layer}")[0][index]
        shown = (kind > (0.0 if layer == 0 else 0.45)).float() * step(0.010, second - first, 0.008)
        tone = shade * (0.6 + 0.6 * kind) * (1.1 - 7 * first).clamp(0.4, 1.1)
        light = step(0.78, kind, 0.02)
        leaf = torch.stack((tone * (1 - light), tone * light, torch.zeros_like(tone)))
        total = total * (1 - shown) + leaf * shown
    gaps = step(0.60, fractal(9, 3, "gaps"), 0.06)
    return total * (1 - 0.6 * gaps) + _weights(0.0, 0.0, 0.25 * gaps)


def bark() -> Tensor:
    x, y = grid()
    bend = 0.12 * fractal(3, 3, "bark bend")
    ridge = (((x + bend) * 14) % 1 - 0.5).abs() * 2
    ridge = ridge * (0.6 + 0.4 * noise(30, 6, "bark"))
    del y
    return _weights(0.35 + 0.8 * ridge, 0.25 * noise(20, 9, "bark b"))


def roof() -> Tensor:
    x, y = grid()
    column, row, fx, fy = cells_of(x, y, 10, 12, 0.5)
    curve = 1 - (2 * fx - 1) ** 2
    value = (0.45 + 0.5 * curve) * (0.65 + 0.4 * fy)
    value = value * (0.75 + 0.45 * lattice(10, 12, "roof")[row, column])
    return _weights(value, 0.15 * fractal(5, 4, "roof moss"))


def fabric() -> Tensor:
    x, y = grid()
    twill = 0.5 + 0.5 * torch.sin(2 * math.pi * (x * 40 + y * 40))
    fold = fractal(3, 3, "fabric")
    fuzz = noise(128, 128, "fuzz")
    return _weights(0.62 + 0.14 * twill + 0.3 * fold + 0.1 * fuzz, 0.12 * fold)


def marble() -> Tensor:
    bend = fractal(3, 5, "marble bend")
    x, y = grid()
    vein = torch.sin(2 * math.pi * (x + y + 2.2 * bend)).abs()
    thin = 1 - step(0.10, vein, 0.09)
    return _weights((0.82 + 0.2 * fractal(5, 4, "marble")) * (1 - 0.7 * thin), 0.7 * thin)


def metal() -> Tensor:
    x, y = grid()
    _, _, fx, fy = cells_of(x, y, 3, 2)
    edge = torch.minimum(torch.minimum(fx, 1 - fx) * 0.66, torch.minimum(fy, 1 - fy))
    face = step(0.02, edge, 0.01)
    rust = step(0.68, fractal(4, 5, "rust"), 0.06)
    brushed = 0.72 + 0.3 * (noise(3, 200, "brushed") - 0.4)
    return _weights(face * brushed * (1 - rust), face * rust * brushed, 0.5 * (1 - face))


def wallpaper() -> Tensor:
    x, y = grid()
    _, row, fx, fy = cells_of(x, y, 4, 4, 0.5)
    angle = torch.atan2(fy - 0.5, fx - 0.5)
    radius = ((fx - 0.5) ** 2 + (fy - 0.5) ** 2).sqrt()
    petals = 0.27 + 0.10 * torch.cos(5 * angle + row)
    flower = 1 - step(0.0, radius - petals, 0.015)
    heart = 1 - step(0.09, radius, 0.015)
    ring = (1 - step(0.02, (radius - 0.43).abs(), 0.012)) * 0.6
    paper = 0.9 + 0.12 * (fractal(20, 3, "paper") - 0.5)
    b = (flower * (1 - heart) + ring).clamp(0, 1)
    return _weights(paper * (1 - b) * (1 - heart), paper * b * (1 - heart), heart * paper)


def noise_layer() -> Tensor:
    return _weights(fractal(32, 3, "detail", 0.7), fractal(4, 4, "macro"), fractal(12, 3, "middle"))


def clouds() -> Tensor:
    body = fractal(3, 6, "clouds", 0.58)
    return _weights(step(0.56, body, 0.14), fractal(3, 3, "cloud shade"), body)


SURFACES: dict[str, Callable[[], Tensor]] = {
    "noise": noise_layer,
    "clouds": clouds,
    "plaster": plaster,
    "concrete": concrete,
    "brick": brick,
    "blocks": blocks,
    "tiles": tiles,
    "mosaic": mosaic,
    "checker": checker,
    "planks": planks,
    "parquet": parquet,
    "wood": wood,
    "stripes": stripes,
    "dots": dots,
    "plaid": plaid,
    "grass": grass,
    "soil": soil,
    "gravel": gravel,
    "asphalt": asphalt,
    "rock": rock,
    "sand": sand,
    "leaves": leaves,
    "bark": bark,
    "roof": roof,
    "fabric": fabric,
    "marble": marble,
    "metal": metal,
    "wallpaper": wallpaper,
}
