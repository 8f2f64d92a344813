"""ViZDoom: levels of a game. Its depth buffer has 8 bits, too coarse to carry a pixel anywhere, so
depth is computed from the level's own map: walls are vertical, floors and ceilings level.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import finalize

import numpy as np
from PIL import Image

from flythrough.cameras import pose as se3
from flythrough.errors import InputError
from flythrough.evaluation.renderers.base import Views, best_heading, chosen_scene, package

SCENES = {"my-way-home": "my_way_home.wad", "basic": "basic.wad"}
"""Levels whose floors and ceilings have one height each and in which nothing hurts."""

_STARTS = {
    "my-way-home": ((688, 48), (688, -176), (464, 48), (464, -464), (1040, 48)),
    "basic": ((-192, 32), (-300, 100), (-80, -60)),
}
"""Where cameras may start, in map units; the seed chooses."""

_RADIUS = 12.0  # map units that the eye must be away from a wall

_HEIGHT, _WIDTH = 480, 640
_ANGLE = 90.0
_TALL = 1.2  # Doom's pixels were taller than wide, and its walls still are
_SETTLE = 12  # tics until the eye is at its height after a jump


class Doom:
    """Levels of ViZDoom (map units; z up). The camera walks and turns, but never tilts."""

    def __init__(self) -> None:
        self._doom = package("vizdoom", "ViZDoom")
        self._games: dict[tuple[str, int], tuple[Any, tuple[float, float, float]]] = {}
        # ViZDoom writes its settings when a game ends, by default into the working directory.
        self._own = TemporaryDirectory(prefix="flythrough-vizdoom-")
        finalize(self, _ended, self._games)  # before that folder goes

    def views(
        self,
        scene: str,
        seed: int,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> Views:
        if np.abs(world_from_camera[:, 1, 3]).max() > 1e-6 or not np.allclose(
            world_from_camera[:, 1, 1], 1, atol=1e-9
        ):
            raise InputError(
                "ViZDoom's camera can walk and turn, but not rise, tilt or roll; choose a path of "
                "forward, truck, pan and orbit."
            )
        game, (x, y, heading) = self._game(scene, seed)
        shown = []
        for pose in world_from_camera:
            turn = math.degrees(math.atan2(pose[0, 2], pose[2, 2]))  # to the right
            ahead, right = pose[2, 3], pose[0, 3]
            c, s = math.cos(math.radians(heading)), math.sin(math.radians(heading))
            place = (x + ahead * c + right * s, y + ahead * s - right * c)
            shown.append(self._drawn(game, place, heading - turn, intrinsics, size))
        rgb, depth, known, poses = (np.stack(part) for part in zip(*shown, strict=True))
        start = _standing(x, y, 0.0, heading)
        return Views(rgb, depth, se3.inverse(start) @ _on_the_ground(poses), known)

    def _game(self, scene: str, seed: int) -> tuple[Any, tuple[float, float, float]]:
        key = scene, seed
        if key not in self._games:
            chosen_scene(scene, SCENES, "ViZDoom")
            game = self._started(scene, seed)
            x, y = _STARTS[scene][seed % len(_STARTS[scene])]
            k = np.array([[277.0, 0, 160], [0, 277, 96], [0, 0, 1]])

            def shown(number: int) -> tuple[np.ndarray, np.ndarray]:
                picture, depth, _, _ = self._drawn(game, (x, y), 45.0 * number, k, (192, 320))
                return picture, depth

            self._games[key] = game, (float(x), float(y), 45.0 * best_heading(shown))
        return self._games[key]

    def _started(self, scene: str, seed: int) -> Any:
        doom = self._doom
        game = doom.DoomGame()
        game.set_doom_config_path(str(Path(self._own.name) / "vizdoom.ini"))
        game.set_window_visible(False)
        game.set_mode(doom.Mode.PLAYER)
        game.set_screen_resolution(doom.ScreenResolution.RES_640X480)
        game.set_screen_format(doom.ScreenFormat.RGB24)
        game.set_doom_scenario_path(str(Path(doom.scenarios_path) / SCENES[scene]))
        game.set_doom_map("map01")
        for switch in ("hud", "weapon", "crosshair", "decals", "particles", "messages"):
            getattr(game, f"set_render_{switch}")(False)
        game.set_sectors_info_enabled(True)
        game.set_labels_buffer_enabled(True)
        game.set_available_buttons([doom.Button.TURN_LEFT_RIGHT_DELTA])
        names = ("POSITION_X", "POSITION_Y", "POSITION_Z", "ANGLE")
        game.set_available_game_variables(
            [getattr(doom.GameVariable, f"CAMERA_{name}") for name in names]
        )
        game.set_episode_timeout(0)
        game.set_seed(seed % 2**31)
        left = Path.cwd() / "_vizdoom"  # made empty by every game, wherever it is told to write
        made = not left.exists()
        game.init()
        if made:
            with suppress(OSError):
                left.rmdir()
        return game

    def _now(self, game: Any) -> np.ndarray:
        """The camera's x, y, z and heading in degrees, counter-clockwise from the x axis."""
        return np.asarray(game.get_state().game_variables, np.float64)

    def _drawn(
        self,
        game: Any,
        place: tuple[float, float],
        heading: float,
        intrinsics: np.ndarray,
        size: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Picture, depth, where it is known, and world_from_camera [4,4] in map units."""
        game.send_game_command(f"warp {place[0]:.4f} {place[1]:.4f}")
        game.make_action([0.0], 1)
        off = (self._now(game)[3] - heading + 180) % 360 - 180
        game.make_action([off], 1)
        game.make_action([0.0], _SETTLE)
        x, y, z, angle = self._now(game)
        walls = _walls(game.get_state().sectors)
        if math.hypot(x - place[0], y - place[1]) > 2.0 or not _stands_free(x, y, walls):
            raise InputError(
                f"ViZDoom's camera cannot stand at ({place[0]:.0f}, {place[1]:.0f}), in or behind "
                "a wall; choose a shorter path."
            )
        state = game.get_state()
        picture = _cut(state.screen_buffer, Image.Resampling.BOX, intrinsics, size)
        labels = _cut(state.labels_buffer, Image.Resampling.NEAREST, intrinsics, size)
        pose = _standing(x, y, z, angle)
        return picture, _map_depth(state.sectors, pose, intrinsics, size), labels == 0, pose


def _ended(games: dict[tuple[str, int], tuple[Any, tuple[float, float, float]]]) -> None:
    for game, _ in games.values():
        game.close()


def _standing(x: float, y: float, z: float, heading: float) -> np.ndarray:
    """world_from_camera [4,4] of a level camera."""
    a = math.radians(heading)
    eye = np.array([x, y, z])
    return se3.look_at(eye, eye + np.array([math.cos(a), math.sin(a), 0.0]), (0.0, 0.0, 1.0))


def _on_the_ground(poses: np.ndarray) -> np.ndarray:
    """Poses with the height of the eye, which never changes, taken off."""
    poses = poses.copy()
    poses[:, 2, 3] = 0.0
    return poses


def _cut(
    screen: np.ndarray, filtering: Any, intrinsics: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The middle of the screen as a camera with these centred intrinsics sees it.

    Raises:
        InputError: it sees more than the screen shows.
    """
    (height, width), focal = size, _WIDTH / 2 / math.tan(math.radians(_ANGLE) / 2)
    wide = width * focal / intrinsics[0, 0]
    tall = height * _TALL * focal / intrinsics[1, 1]
    if wide > _WIDTH or tall > _HEIGHT:
        raise InputError(
            f"ViZDoom shows {_ANGLE:g} degrees across, too little for {height}x{width} at this "
            "field of view; choose a wider size."
        )
    left, top = (_WIDTH - wide) / 2, (_HEIGHT - tall) / 2
    box = left, top, left + wide, top + tall
    return np.array(Image.fromarray(screen).resize((width, height), filtering, box=box))


def _walls(sectors: Any) -> np.ndarray:
    """x1, y1, x2, y2 of the lines that nobody can pass, [n,4]."""
    lines = [(w.x1, w.y1, w.x2, w.y2) for s in sectors for w in s.lines if w.is_blocking]
    return np.array(lines, np.float64)


def _stands_free(x: float, y: float, walls: np.ndarray) -> bool:
    """Inside the level (a ray to the side crosses its outline an odd number of times) and not too
    near to a wall."""
    one, other = walls[:, :2], walls[:, 2:]
    spans = (one[:, 1] > y) != (other[:, 1] > y)
    rise = np.where(spans, other[:, 1] - one[:, 1], 1.0)
    crossing = one[:, 0] + (y - one[:, 1]) * (other[:, 0] - one[:, 0]) / rise
    inside = int((spans & (crossing > x)).sum()) % 2 == 1
    along, eye = other - one, np.array([x, y])
    share = ((eye - one) * along).sum(1) / np.maximum((along**2).sum(1), 1e-9)
    nearest = one + np.clip(share, 0, 1)[:, None] * along
    return inside and float(np.linalg.norm(nearest - eye, axis=1).min()) >= _RADIUS


def _map_depth(
    sectors: Any, pose: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """z-depth float32 [H,W] of walls, floor and ceiling from a level camera."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    rays = np.stack([columns, rows, np.ones(size)], -1) @ np.linalg.inv(intrinsics).T
    ways = rays @ pose[:3, :3].T
    eye, flat = pose[:3, 3], ways[0, :, :2]
    walls = _walls(sectors)
    start, along = walls[:, None, :2] - eye[:2], walls[:, None, 2:] - walls[:, None, :2]
    cross = flat[None, :, 0] * along[..., 1] - flat[None, :, 1] * along[..., 0]
    safe = np.where(np.abs(cross) < 1e-12, 1e-12, cross)
    t = (start[..., 0] * along[..., 1] - start[..., 1] * along[..., 0]) / safe
    at = (start[..., 0] * flat[None, :, 1] - start[..., 1] * flat[None, :, 0]) / safe
    hit = (t > 1e-6) & (at >= -1e-9) & (at <= 1 + 1e-9)
    wall = np.where(hit, t, np.inf).min(0)
    floor = min(s.floor_height for s in sectors)
    ceiling = max(s.ceiling_height for s in sectors)
    rise = ways[..., 2]
    level = np.where(rise < 0, floor - eye[2], ceiling - eye[2]) / np.where(rise == 0, 1e-12, rise)
    depth = np.minimum(wall[None], level)
    return np.where(np.isfinite(depth), depth, 0.0).astype(np.float32)
