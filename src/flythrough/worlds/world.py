"""The World value: primitives, materials, light, sky and movers as small tensors.

The world frame is in metres with x right, y **down** and z forward, so that a level camera's axes
are the world's axes; the ground or floor lies at y = 0 and up is -y.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from flythrough.errors import InputError

PRIMITIVES = 64  # slots in every world, so that worlds stack; unused slots have shape -1
MATERIALS = 40
MATERIAL_FIELDS = 16
MOVERS = 2
SKY_DEPTH = 1000.0  # metres; the declared depth of every pixel that shows sky
NEAR = 0.05  # metres; surfaces nearer than this plane are not drawn

BOX, ROOM, PLANE, SPHERE, CYLINDER, CONE = range(6)

# slices of the environment vector; colours are linear light
LIGHT = slice(0, 3)  # position of the sun or lamp
LIGHT_COLOUR = slice(3, 6)
LIGHT_FALLOFF = 6  # 1 / (range in metres) squared, 0 for the sun
AMBIENT_UP = slice(7, 10)
AMBIENT_DOWN = slice(10, 13)
SHADOW_TARGET = slice(13, 16)
SHADOW_TANGENT = 16  # tangent of half the shadow camera's field of view
ZENITH = slice(17, 20)
HORIZON = slice(20, 23)
CLOUD = 23
CLOUD_SCALE = 24
FOG = 25  # 1 / metres
EXPOSURE = 26
ENVIRONMENT = 27

# columns of the mover table
VELOCITY = slice(0, 3)  # metres a second
SWING_SIN = slice(3, 6)  # metres, multiplies sin(rate t + phase) - sin(phase)
SWING_COS = slice(6, 9)  # metres, multiplies cos(rate t + phase) - cos(phase)
RATE, PHASE, SPIN = 9, 10, 11  # rad/s, rad, rad/s about the vertical through the pivot
PIVOT = slice(12, 15)
MOVER_FIELDS = 15


@dataclass(frozen=True, eq=False)
class WorldBatch:
    """B worlds stacked. Tensors (K = PRIMITIVES, M = MATERIALS):

    ``shape`` [B,K] int64 (BOX .. CONE, -1 unused); ``pose`` [B,K,3,4] float64 rigid
    world-from-object at rest; ``half`` [B,K,3] float32 half sizes in metres; ``surface`` [B,K,4]
    int64 materials of the x faces (or round side), z faces, upper and lower face; ``mover`` [B,K]
    int64 (-1 still); ``contact`` [B,K] float32 darkening towards the base; ``material``
    [B,M,MATERIAL_FIELDS] float32; ``movers`` [B,MOVERS,MOVER_FIELDS] float64; ``environment``
    [B,ENVIRONMENT] float32; ``start`` [B,4,4] float64 world-from-camera of a natural first view.
    """

    seeds: tuple[int, ...]
    kinds: tuple[str, ...]
    captions: tuple[str, ...]
    shape: Tensor
    pose: Tensor
    half: Tensor
    surface: Tensor
    mover: Tensor
    contact: Tensor
    material: Tensor
    movers: Tensor
    environment: Tensor
    start: Tensor
    shapes_present: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.shape.shape[0])

    @property
    def device(self) -> torch.device:
        return self.shape.device

    def to(self, device: str | torch.device) -> WorldBatch:
        """The same worlds on ``device``."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def repeated(self, times: int) -> WorldBatch:
        """Every world ``times`` times in a row: B * times worlds."""
        moved = {
            field.name: getattr(self, field.name).repeat_interleave(times, 0)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        names = {
            name: tuple(value for value in getattr(self, name) for _ in range(times))
            for name in ("seeds", "kinds", "captions")
        }
        return replace(self, **moved, **names)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class World:
    """One world: a batch of one, with its seed, kind and caption as plain values."""

    batch: WorldBatch

    @property
    def seed(self) -> int:
        return self.batch.seeds[0]

    @property
    def kind(self) -> str:
        return self.batch.kinds[0]

    @property
    def caption(self) -> str:
        return self.batch.captions[0]

    @property
    def world_from_camera(self) -> Tensor:
        """The natural first camera, [4,4] float64."""
        return self.batch.start[0]

    @property
    def has_movers(self) -> bool:
        return bool((self.batch.mover >= 0).any())


def stack(worlds: list[World]) -> WorldBatch:
    """Stack worlds (on the CPU) into a batch, in order; raises InputError for an empty list."""
    if not worlds:
        raise InputError("0 worlds were given, but a batch needs at least one; pass a world.")
    batches = [world.batch for world in worlds]
    if len(batches) == 1:
        return batches[0]
    tensors = {
        field.name: torch.cat([getattr(batch, field.name) for batch in batches])
        for field in fields(WorldBatch)
        if isinstance(getattr(batches[0], field.name), Tensor)
    }
    present = sorted({shape for batch in batches for shape in batch.shapes_present})
    return WorldBatch(
        seeds=tuple(world.seed for world in worlds),
        kinds=tuple(world.kind for world in worlds),
        captions=tuple(world.caption for world in worlds),
        shapes_present=tuple(present),
        **tensors,
    )


def as_batch(worlds: World | WorldBatch) -> WorldBatch:
    """A World as a batch of one; a batch as it is."""
    return worlds.batch if isinstance(worlds, World) else worlds
