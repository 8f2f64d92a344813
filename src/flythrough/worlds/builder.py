"""A scene under construction: plain Python lists while it grows, tensors once at the end."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from flythrough.seeds import fold
from flythrough.worlds import world as w
from flythrough.worlds.palettes import RGB, mixed, scaled
from flythrough.worlds.textures import LAYERS, PHOTO

Vector = tuple[float, float, float]
T = TypeVar("T")
BLACK: RGB = (0.05, 0.05, 0.05)
WHITE: RGB = (0.92, 0.92, 0.90)
IDENTITY: tuple[RGB, RGB, RGB] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class Dice:
    """Random choices of one world: numbers drawn in bulk, because single draws are slow."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._source = np.random.Generator(np.random.Philox(key=fold(seed, "world", purpose)))
        self._numbers: list[float] = []

    def unit(self) -> float:
        """A number in [0,1)."""
        if not self._numbers:
            self._numbers = self._source.random(256).tolist()
        return self._numbers.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.unit() * len(options))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        keyed = sorted((self.unit(), index) for index in range(len(options)))
        return [options[index] for _, index in keyed]

    def shade(self, colour: RGB, spread: float = 0.08) -> RGB:
        """``colour`` a little brighter or darker."""
        return scaled(colour, 1 + self.between(-spread, spread))


def _linear(colour: RGB) -> RGB:
    return (colour[0] ** 2.2, colour[1] ** 2.2, colour[2] ** 2.2)


def turn(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> list[list[float]]:
    """Rotation rows: roll about z, then pitch about x, then yaw about y (radians)."""
    cy, sy = math.cos(yaw), math.sin(yaw)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    return [
        [cy * cr + sy * sp * sr, -cy * sr + sy * sp * cr, sy * cp],
        [cp * sr, cp * cr, -sp],
        [-sy * cr + cy * sp * sr, sy * sr + cy * sp * cr, cy * cp],
    ]


@dataclass
class SceneBuilder:
    """Collects primitives and materials of one scene; ``full`` says when the slots run out."""

    dice: Dice
    rows: list[tuple] = field(default_factory=list)
    materials: list[list[float]] = field(default_factory=list)
    movers: list[list[float]] = field(default_factory=list)
    environment: list[float] = field(default_factory=lambda: [0.0] * w.ENVIRONMENT)

    @property
    def room_left(self) -> int:
        return w.PRIMITIVES - len(self.rows)

    def material(
        self,
        layer: str | int,
        tile: float | tuple[float, float] = 1.0,
        colours: Sequence[RGB] = IDENTITY,
        *,
        detail: float = 0.25,
        glow: float = 0.0,
        offset: tuple[float, float] | None = None,
        linear: bool = False,
    ) -> int:
        """Add a material: ``tile`` metres covered by one repeat, three colours for its weights.

        ``linear`` colours are linear light instead of sRGB. When the table is full the last
        material is used again.
        """
        if len(self.materials) >= w.MATERIALS:
            return w.MATERIALS - 1
        index = LAYERS[layer] if isinstance(layer, str) else layer
        across, down = tile if isinstance(tile, tuple) else (tile, tile)
        if offset is None:
            offset = (self.dice.unit(), self.dice.unit())
        if linear or colours is IDENTITY:
            a, b, c = colours
        else:
            a, b, c = (_linear(colour) for colour in colours)
        row = [float(index), 1 / across, 1 / down, *offset, *a, *b, *c, detail, glow]
        self.materials.append(row)
        return len(self.materials) - 1

    def picture(self, width: float, height: float, glow: float = 0.0) -> int:
        """A photograph (or built-in poster) that fills an upright face; half of them change hue."""
        layer = PHOTO + self.dice.whole(0, 9999)
        share = self.dice.between(0.0, 0.6) if self.dice.chance(0.5) else 0.0
        turned = self.dice.shuffled(IDENTITY)
        colours = tuple(mixed(a, b, share) for a, b in zip(IDENTITY, turned, strict=True))
        return self.material(
            layer, (width, height), colours, detail=0.05, glow=glow, offset=(0.5, 0.0), linear=True
        )

    def fitted(
        self,
        layer: str,
        width: float,
        height: float,
        colours: Sequence[RGB] = IDENTITY,
        *,
        detail: float = 0.25,
        glow: float = 0.0,
    ) -> int:
        """Layer ``layer`` filling an upright face of width x height metres once."""
        return self.material(
            layer, (width, height), colours, detail=detail, glow=glow, offset=(0.5, 0.0)
        )

    def plain(self, colour: RGB, layer: str = "plaster", tile: float = 1.5) -> int:
        """A surface in one colour with some structure."""
        return self.material(layer, tile, (colour, scaled(colour, 1.2), scaled(colour, 0.7)))

    def wood(self, colour: RGB, layer: str = "wood", tile: float = 0.7) -> int:
        """Wood, planks or parquet in a tone."""
        dark = mixed(scaled(colour, 0.75), (0.2, 0.12, 0.07), 0.25)
        third = dark if layer == "wood" else scaled(colour, 0.45)
        return self.material(layer, tile, (colour, dark, third), detail=0.2)

    def add(
        self,
        shape: int,
        centre: Vector,
        half: Vector,
        surface: int | tuple[int, int, int, int],
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        mover: int = -1,
        contact: float = 0.45,
    ) -> None:
        """Add a primitive (dropped when every slot is taken); half sizes in metres."""
        if not self.room_left:
            return
        faces = surface if isinstance(surface, tuple) else (surface,) * 4
        self.rows.append((shape, centre, half, faces, (yaw, pitch, roll), mover, contact))

    def standing(
        self,
        shape: int,
        x: float,
        z: float,
        half: Vector,
        surface: int | tuple[int, int, int, int],
        *,
        above: float = 0.0,
        yaw: float = 0.0,
        mover: int = -1,
        contact: float = 0.45,
    ) -> None:
        """A primitive whose base is ``above`` metres over the ground."""
        centre = (x, -above - half[1], z)
        self.add(shape, centre, half, surface, yaw=yaw, mover=mover, contact=contact)

    def mover(
        self,
        *,
        velocity: Vector = (0.0, 0.0, 0.0),
        swing_sin: Vector = (0.0, 0.0, 0.0),
        swing_cos: Vector = (0.0, 0.0, 0.0),
        rate: float = 0.0,
        phase: float = 0.0,
        spin: float = 0.0,
        pivot: Vector = (0.0, 0.0, 0.0),
    ) -> int:
        """Add a rigid motion and return its number, or -1 (still) when both slots are taken."""
        if len(self.movers) >= w.MOVERS:
            return -1
        self.movers.append([*velocity, *swing_sin, *swing_cos, rate, phase, spin, *pivot])
        return len(self.movers) - 1

    def set(self, where: int | slice, value: float | Sequence[float]) -> None:
        """Set entries of the environment vector."""
        if isinstance(where, slice):
            self.environment[where] = list(value)  # type: ignore[arg-type]
        else:
            self.environment[where] = float(value)  # type: ignore[arg-type]

    def colour(self, where: slice, colour: RGB, gain: float = 1.0) -> None:
        """Set an environment colour given in sRGB, times ``gain`` in linear light."""
        self.set(where, [value * gain for value in _linear(colour)])

    def finish(
        self, seed: int, kind: str, caption: str, eye: Vector, yaw: float, pitch: float
    ) -> w.World:
        """Freeze the scene; the start camera is at ``eye``, turned right and up (radians)."""
        count = len(self.rows)
        shape = np.full(w.PRIMITIVES, -1, np.int64)
        pose = np.tile(np.eye(3, 4), (w.PRIMITIVES, 1, 1))
        half = np.ones((w.PRIMITIVES, 3), np.float32)
        surface = np.zeros((w.PRIMITIVES, 4), np.int64)
        mover = np.full(w.PRIMITIVES, -1, np.int64)
        contact = np.zeros(w.PRIMITIVES, np.float32)
        if count:
            columns = list(zip(*self.rows, strict=True))
            shape[:count] = columns[0]
            pose[:count, :, :3] = [turn(*angles) for angles in columns[4]]
            pose[:count, :, 3] = columns[1]
            half[:count] = columns[2]
            surface[:count] = columns[3]
            mover[:count] = columns[5]
            contact[:count] = columns[6]
        material = np.zeros((w.MATERIALS, w.MATERIAL_FIELDS), np.float32)
        material[: len(self.materials)] = self.materials
        movers = np.zeros((w.MOVERS, w.MOVER_FIELDS))
        if self.movers:
            movers[: len(self.movers)] = self.movers
        start = np.eye(4)
        start[:3, :3] = turn(yaw, pitch)
        start[:3, 3] = eye
        batch = w.WorldBatch(
            seeds=(seed,),
            kinds=(kind,),
            captions=(re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", caption),),
            shape=torch.from_numpy(shape)[None],
            pose=torch.from_numpy(pose)[None],
            half=torch.from_numpy(half)[None],
            surface=torch.from_numpy(surface)[None],
            mover=torch.from_numpy(mover)[None],
            contact=torch.from_numpy(contact)[None],
            material=torch.from_numpy(material)[None],
            movers=torch.from_numpy(movers)[None],
            environment=torch.tensor([self.environment], dtype=torch.float32),
            start=torch.from_numpy(start)[None],
            shapes_present=tuple(sorted(set(shape[:count].tolist()))),
        )
        return w.World(batch)
