"""Full-colour pictures for the worlds: facades, doors, shelves, window views, rugs and posters.

Unlike the patterns these carry their own colours: channel r, g, b in linear light. A material may
still tint them or rotate their hue through its three colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flythrough.seeds import generator
from flythrough.worlds.noise import cells_of, fractal, grid, lattice, noise, step

POSTERS = 24


def _solid(colour: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colour).pow(2.2).view(3, 1, 1)


def _over(base: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    return base + (colour - base) * cover


def _frame(fx: Tensor, fy: Tensor, margin_x: float, margin_y: float) -> Tensor:
    inside = torch.minimum(
        torch.minimum(fx, 1 - fx) / margin_x, torch.minimum(fy, 1 - fy) / margin_y
    )
    return step(1.0, inside, 0.06)


def _facade(columns: int, rows: int, margin: tuple[float, float], name: str, bands: bool) -> Tensor:
    """Channels: r = wall, g = glass, b = frame and trim (a pattern, coloured by its material)."""
    x, y = grid()
    column, row, fx, fy = cells_of(x, y, columns, rows)
    opening = _frame(fx, fy, margin[0], margin[1])
    pane = _frame(fx, fy, margin[0] * 1.16, margin[1] * 1.18)
    bar = (1 - step(0.012, (fx - 0.5).abs(), 0.008)) * (0.0 if bands else 1.0)
    bar = torch.maximum(bar, 1 - step(0.012, (fy - 0.42).abs(), 0.008))
    glass = pane * (1 - bar)
    tone = lattice(columns, rows, name)[row, column]
    reflection = 0.30 + 0.9 * tone * (0.55 + 0.6 * (1 - fy)) + 0.25 * (noise(5, 7, name) - 0.5)
    curtain = step(0.62, lattice(columns, rows, name + "c")[row, column], 0.01)
    curtain = curtain * step(0.34, (fx - 0.5).abs() + 0.10, 0.02)
    wall = 0.78 + 0.26 * (fractal(8, 4, name + "wall") - 0.4)
    sill = step(margin[1] * 0.45, 1 - fy, 0.02) * (1 - step(margin[1] * 0.95, 1 - fy, 0.02))
    sill = sill * step(margin[0] * 0.7, torch.minimum(fx, 1 - fx), 0.02)
    trim = (opening - glass).clamp(0, 1) + 0.8 * sill + 0.7 * glass * curtain
    if not bands:
        grime = 0.85 + 0.15 * step(0.25, 1 - fy, 0.25)
        wall = wall * grime
    trim = trim.clamp(0, 1)
    body = (1 - opening) * (1 - 0.8 * sill)
    return torch.stack((wall * body, glass * reflection * (1 - curtain), trim))


def facade_flats() -> Tensor:
    return _facade(3, 2, (0.24, 0.20), "flats", False)


def facade_office() -> Tensor:
    return _facade(4, 2, (0.06, 0.22), "office", True)


def facade_old() -> Tensor:
    return _facade(2, 2, (0.30, 0.17), "old", False)


def facade_brick() -> Tensor:
    from flythrough.worlds.patterns import brick

    plain = _facade(3, 2, (0.27, 0.20), "brickhouse", False)
    masonry = brick()
    shrunk = torch.cat([masonry[:, ::2, ::2]] * 2, dim=1)
    wall = (
        torch.cat([shrunk, shrunk], dim=2).mul(torch.tensor([1.0, 0.8, 0.7]).view(3, 1, 1)).sum(0)
    )
    solid = step(0.4, plain[0], 0.1)
    return torch.stack((plain[0] * (0.45 + 0.6 * wall) * solid, plain[1], plain[2]))


def shop() -> Tensor:
    x, y = grid()
    wall = _solid((0.62, 0.58, 0.52)) * (0.85 + 0.3 * fractal(6, 4, "shop"))
    _, _, fx, _ = cells_of(x, y, 2, 1)
    awning = step(0.30, y, 0.004) * (1 - step(0.42, y, 0.004))
    stripe = step(0.5, (x * 16) % 1, 0.02)
    cloth = _over(_solid((0.86, 0.84, 0.78)), _solid((0.62, 0.18, 0.16)), stripe)
    image = _over(wall, cloth, awning)
    sign = (
        step(0.14, y, 0.004)
        * (1 - step(0.28, y, 0.004))
        * _frame(fx, torch.full_like(fx, 0.5), 0.06, 0.06)
    )
    image = _over(image, _solid((0.16, 0.24, 0.30)), sign)
    text = (
        step(0.18, y, 0.004) * (1 - step(0.24, y, 0.004)) * step(0.35, noise(70, 1, "sign"), 0.02)
    )
    image = _over(
        image,
        _solid((0.92, 0.87, 0.68)),
        text * sign * _frame(fx, torch.full_like(fx, 0.5), 0.2, 0.2),
    )
    pane = (
        step(0.44, y, 0.004)
        * (1 - step(0.92, y, 0.004))
        * _frame(fx, torch.full_like(fx, 0.5), 0.08, 0.1)
    )
    goods = step(0.62, fractal(14, 3, "goods"), 0.05) * step(0.62, y, 0.01)
    shown = _over(
        _solid((0.30, 0.34, 0.36)), _solid((0.55, 0.66, 0.72)), 0.7 * step(0.55, (fx + y) % 1, 0.1)
    )
    shown = _over(shown, _solid((0.80, 0.62, 0.38)), goods * 0.45)
    shown = _over(shown, _solid((0.95, 0.86, 0.66)), 0.4 * (1 - step(0.06, y - 0.44, 0.04)))
    image = _over(image, shown, pane)
    bars = 1 - step(0.012, ((fx * 3) % 1 - 0.5).abs() - 0.0, 0.01)
    return _over(image, _solid((0.30, 0.29, 0.27)), pane * bars)


def window_view() -> Tensor:
    x, y = grid()
    sky = _over(_solid((0.55, 0.72, 0.92)), _solid((0.92, 0.95, 0.97)), (y * 1.4).clamp(0, 1))
    sky = _over(sky, _solid((0.98, 0.98, 0.98)), 0.8 * step(0.6, fractal(3, 5, "view"), 0.1))
    hills = 0.60 + 0.16 * (noise(4, 1, "view hills") - 0.5) + 0.05 * (noise(40, 1, "trees") - 0.5)
    land = _solid((0.32, 0.46, 0.24)) * (0.6 + 0.8 * fractal(16, 4, "view land"))
    image = _over(sky, land, step(0.0, y - hills, 0.006))
    border = 1 - _frame(x, y, 0.06, 0.06)
    cross = torch.maximum(
        1 - step(0.016, (x - 0.5).abs(), 0.004), 1 - step(0.013, (y - 0.4).abs(), 0.004)
    )
    return _over(image, _solid((0.93, 0.92, 0.89)) * 0.75, torch.maximum(border, cross))


def door() -> Tensor:
    """r = panel, g = moulding, b = handle: coloured by its material."""
    x, y = grid()
    _, _, fx, fy = cells_of(x, y, 2, 3)
    inner = _frame(fx, fy, 0.20, 0.16)
    edge = _frame(fx, fy, 0.14, 0.11) - inner
    grain = 0.75 + 0.4 * (noise(60, 4, "door") - 0.4)
    knob = 1 - step(0.035, ((x - 0.88) ** 2 + (y - 0.52) ** 2).sqrt(), 0.006)
    border = 1 - _frame(x, y, 0.03, 0.02)
    moulding = (edge + border).clamp(0, 1)
    return torch.stack(((grain * (1 - moulding) + 0.1 * inner) * (1 - knob), moulding, knob))


def shelf() -> Tensor:
    x, y = grid()
    rows, columns = 5, 26
    row = (y * rows).long()
    warp = x * columns + 0.6 * torch.sin(
        2 * math.pi * (x * 3 + lattice(1, rows, "warp")[:, 0][row])
    )
    column = warp.floor().long() % columns
    fx, fy = warp - warp.floor(), y * rows - row
    draws = torch.rand(6, rows, columns, generator=generator(7, "books"))
    colours = torch.tensor(
        [
            (0.45, 0.16, 0.13), (0.17, 0.26, 0.38), (0.66, 0.58, 0.42), (0.20, 0.33, 0.24),
            (0.80, 0.76, 0.68), (0.30, 0.24, 0.20), (0.70, 0.44, 0.20), (0.38, 0.40, 0.44),
        ]
    ).pow(2.2)  # fmt: skip
    spine = colours[(draws[0] * 8).long().clamp(0, 7)[row, column]].movedim(-1, 0)
    height = 0.12 + 0.3 * draws[1][row, column]
    cover = step(0.0, fy - height, 0.01) * step(0.05, torch.minimum(fx, 1 - fx), 0.03)
    round_off = 0.6 + 0.4 * (1 - (2 * fx - 1) ** 2)
    band = (1 - step(0.03, (fy - 0.62).abs(), 0.01)) * (draws[2] > 0.45)[row, column]
    books = _over(spine * round_off, _solid((0.85, 0.78, 0.55)), 0.7 * band)
    image = _over(_solid((0.10, 0.08, 0.06)), books, cover)
    board = step(0.93, fy, 0.008)
    wood = _solid((0.52, 0.38, 0.25)) * (0.7 + 0.5 * noise(3, 90, "board"))
    return _over(image, wood, torch.maximum(board, 1 - _frame(x, y, 0.02, 0.015)))


def rug() -> Tensor:
    """r = field, g = ornament, b = border: coloured by its material."""
    x, y = grid()
    edge = torch.minimum(torch.minimum(x, 1 - x), torch.minimum(y, 1 - y))
    border = 1 - step(0.12, edge, 0.004)
    rim = 1 - step(0.015, (edge - 0.14).abs(), 0.004)
    radius = (((x - 0.5) / 0.3) ** 2 + ((y - 0.5) / 0.36) ** 2).sqrt()
    angle = torch.atan2(y - 0.5, x - 0.5)
    medal = 1 - step(0.0, radius - 0.8 - 0.12 * torch.cos(12 * angle), 0.02)
    inner = 1 - step(0.0, radius - 0.45 - 0.08 * torch.cos(8 * angle), 0.02)
    motif = ((torch.sin(x * 88) * torch.sin(y * 88)) > 0.35).float()
    ornament = (medal - inner + motif * (1 - medal) * (1 - border) * 0.7 + rim).clamp(0, 1)
    ornament = torch.maximum(ornament, border * ((torch.sin((x + y) * 70) > 0.55).float()))
    pile = 0.8 + 0.35 * (noise(128, 128, "pile") - 0.5)
    third = (border * (1 - ornament) + inner).clamp(0, 1)
    return torch.stack((pile * (1 - ornament) * (1 - third), pile * ornament, pile * third))


def _panes(columns: int, margin: float) -> Tensor:
    """Car glass: r = body colour, g = glass, b = bright trim."""
    x, y = grid()
    _, _, fx, fy = cells_of(x, y, columns, 1)
    glass = _frame(fx, fy, margin, 0.16)
    rim = (_frame(fx, fy, margin * 0.7, 0.10) - glass).clamp(0, 1)
    shine = 0.35 + 0.8 * (1 - fy) + 0.5 * step(0.75, (fx + 0.6 * fy) % 1, 0.05)
    return torch.stack(
        ((1 - glass) * (1 - 0.8 * rim) * 0.95, glass * shine, 0.10 * glass * (1 - fy))
    )


def car_windows() -> Tensor:
    return _panes(2, 0.07)


def car_screen() -> Tensor:
    return _panes(1, 0.07)


def car_side() -> Tensor:
    x, y = grid()
    seams = torch.stack([(x - at).abs() for at in (0.30, 0.52, 0.74)]).amin(0)
    line = 1 - step(0.004, seams, 0.002) * step(0.012, (y - 0.30).abs(), 0.006)
    handle = (1 - step(0.02, (seams - 0.04).abs(), 0.004)) * (
        1 - step(0.02, (y - 0.22).abs(), 0.005)
    )
    body = (1.05 - 0.35 * y) * (1 - 0.5 * line)
    sill = step(0.86, y, 0.02)
    lamp = step(0.97, (2 * x - 1).abs(), 0.005) * (1 - step(0.35, y, 0.02)) * step(0.1, y, 0.02)
    body = body * (1 - sill * 0.75) * (1 - lamp)
    return torch.stack((body, 0.25 * sill, 0.9 * lamp + 0.5 * handle))


def car_end() -> Tensor:
    x, y = grid()
    away = (2 * x - 1).abs()
    lamp = (
        step(0.66, away, 0.01)
        * (1 - step(0.95, away, 0.01))
        * step(0.15, y, 0.02)
        * (1 - step(0.42, y, 0.02))
    )
    grille = (1 - step(0.5, away, 0.01)) * step(0.2, y, 0.02) * (1 - step(0.45, y, 0.02))
    bars = 0.5 + 0.5 * torch.cos(y * 160)
    plate = (1 - step(0.28, away, 0.01)) * step(0.58, y, 0.01) * (1 - step(0.74, y, 0.01))
    bumper = step(0.80, y, 0.02)
    body = (1.05 - 0.3 * y) * (1 - lamp) * (1 - grille) * (1 - plate) * (1 - 0.8 * bumper)
    return torch.stack((body, 0.35 * grille * bars + 0.3 * bumper, lamp + 0.9 * plate))


def _palette(draw: Tensor) -> Tensor:
    hues = torch.tensor(
        [
            (0.86, 0.81, 0.70), (0.15, 0.24, 0.34), (0.72, 0.30, 0.20), (0.90, 0.72, 0.36),
            (0.30, 0.44, 0.36), (0.55, 0.68, 0.74), (0.24, 0.20, 0.22), (0.78, 0.55, 0.50),
            (0.95, 0.93, 0.88), (0.46, 0.34, 0.44), (0.40, 0.52, 0.28), (0.18, 0.42, 0.50),
        ]
    ).pow(2.2)  # fmt: skip
    return hues[torch.argsort(draw)[:5]]


def _landscape(palette: Tensor, rand: Tensor, name: str) -> Tensor:
    x, y = grid()
    image = _over(palette[0].view(3, 1, 1), palette[3].view(3, 1, 1), y)
    sun = 1 - step(
        0.07 + 0.08 * float(rand[0]), ((x - rand[1]) ** 2 + (y - 0.3) ** 2).sqrt(), 0.004
    )
    image = _over(image, palette[4].view(3, 1, 1), sun)
    for i in range(3):
        ridge = 0.45 + 0.16 * i + 0.3 * (noise(3 + 2 * i, 1, f"{name}{i}")[:1] - 0.5)
        shade = 0.8 + 0.4 * (fractal(20, 2, f"{name}tone{i}") - 0.5)
        image = _over(image, palette[i].view(3, 1, 1) * shade, step(0.0, y - ridge, 0.004))
    return image


def _shapes(palette: Tensor, rand: Tensor) -> Tensor:
    x, y = grid()
    image = palette[0].view(3, 1, 1) * (0.92 + 0.16 * (fractal(10, 4, "canvas") - 0.5))
    for i in range(9):
        cx, cy, size, kind, colour = (float(v) for v in rand[5 * i : 5 * i + 5])
        size = 0.05 + 0.2 * size
        dx, dy = x - 0.1 - 0.8 * cx, y - 0.1 - 0.8 * cy
        if kind < 0.35:
            distance = (dx * dx + dy * dy).sqrt() - size
        elif kind < 0.7:
            distance = torch.maximum(dx.abs() - size, dy.abs() - size * (0.3 + colour))
        elif kind < 0.85:
            distance = (dx * math.cos(6 * colour) + dy * math.sin(6 * colour)).abs() - 0.02
        else:
            distance = torch.maximum(dx.abs() * 1.7 + dy, -dy) - size * 0.8
        image = _over(
            image, palette[1 + int(colour * 3.999)].view(3, 1, 1), 1 - step(0, distance, 0.003)
        )
    return image


def _text(image: Tensor, ink: Tensor, rand: Tensor, name: str) -> Tensor:
    x, y = grid()
    top = 0.60 + 0.1 * float(rand[0])
    lines = ((y - top) / 0.045).floor()
    within = ((y - top) / 0.045) % 1
    letters = (
        step(0.42, noise(90, 20, name), 0.02)
        * step(0.25, within, 0.05)
        * (1 - step(0.8, within, 0.05))
    )
    block = step(0.12, torch.minimum(x, 1 - x), 0.004) * ((lines >= 0) & (lines < 6))
    title = (
        step(0.45, noise(22, 1, name + "t"), 0.03) * step(0.1, y, 0.004) * (1 - step(0.2, y, 0.004))
    )
    title = title * step(0.12, torch.minimum(x, 1 - x), 0.004)
    return _over(image, ink.view(3, 1, 1), torch.maximum(letters * block, title))


def poster(number: int) -> Tensor:
    """Picture ``number`` of the built-in collection, [3,512,512] linear rgb, with a frame."""
    rand = torch.rand(64, generator=generator(7, "poster", number))
    palette = _palette(rand[:12])
    x, y = grid()
    if number % 3 == 0:
        image = _landscape(palette, rand[12:], f"poster{number}")
    else:
        image = _shapes(palette, rand[12:])
    if number % 3 == 2:
        image = _text(
            _over(image, palette[0].view(3, 1, 1), step(0.56, y, 0.003)),
            palette[2],
            rand,
            f"text{number}",
        )
        image = _over(image, palette[3].view(3, 1, 1), step(0.93, y, 0.003))
    mat = 1 - _frame(x, y, 0.07, 0.07)
    image = _over(image, _solid((0.90, 0.89, 0.86)), mat)
    frame = (0.10, 0.09, 0.08) if number % 2 else (0.55, 0.42, 0.26)
    return _over(image, _solid(frame), 1 - _frame(x, y, 0.035, 0.035))


PICTURES: dict[str, Callable[[], Tensor]] = {
    "facade flats": facade_flats,
    "facade office": facade_office,
    "facade old": facade_old,
    "facade brick": facade_brick,
    "shop": shop,
    "window": window_view,
    "door": door,
    "shelf": shelf,
    "rug": rug,
    "car side": car_side,
    "car end": car_end,
    "car windows": car_windows,
    "car screen": car_screen,
}
