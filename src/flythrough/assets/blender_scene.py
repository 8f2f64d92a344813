"""Builds a Blender scene from the files beside this script: the animated camera, the scene's points
and the video behind them.

Open Blender's Scripting tab and run it there, or: blender --python blender_scene.py
It reads cameras.npz and, where they are there, points.ply and video.mp4.
"""

from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

SENSOR_MM = 36.0
# OpenCV cameras look along +z with y down, Blender's along -z with y up.
CAMERA_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
# OpenCV worlds have y down; Blender's have z up.
WORLD_AXES = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def build(folder: Path) -> None:
    """Replace nothing: add a collection called Flythrough to the open scene."""
    with np.load(folder / "cameras.npz") as archive:
        cameras = {name: archive[name] for name in ("K", "c2w", "width", "height", "fps")}
    collection = bpy.data.collections.new("Flythrough")
    bpy.context.scene.collection.children.link(collection)
    set_up_scene(cameras)
    camera = add_camera(collection, cameras)
    if (folder / "points.ply").exists():
        add_points(collection, *read_points(folder / "points.ply"))
    if (folder / "video.mp4").exists():
        add_background(camera, folder / "video.mp4", len(cameras["c2w"]))


def set_up_scene(cameras: dict[str, Any]) -> None:
    """Size, length and rate of the video."""
    scene = bpy.context.scene
    scene.render.resolution_x = int(cameras["width"])
    scene.render.resolution_y = int(cameras["height"])
    scene.render.resolution_percentage = 100
    oblong = pixel_height(cameras["K"])
    scene.render.pixel_aspect_x = max(1.0, 1 / oblong)  # Blender takes 1 and more
    scene.render.pixel_aspect_y = max(1.0, oblong)
    rate = float(cameras["fps"])
    scene.render.fps = max(1, round(rate))
    scene.render.fps_base = scene.render.fps / rate
    scene.frame_start, scene.frame_end = 1, len(cameras["c2w"])


def add_camera(collection: Any, cameras: dict[str, Any]) -> Any:
    """One camera with a key on every frame."""
    size = float(cameras["width"]), float(cameras["height"])
    scene, oblong = bpy.context.scene, pixel_height(cameras["K"])
    data = bpy.data.cameras.new("Flythrough")
    data.sensor_fit, data.sensor_width = "HORIZONTAL", SENSOR_MM
    camera = bpy.data.objects.new("Flythrough", data)
    collection.objects.link(camera)
    scene.camera = camera
    camera.rotation_mode = "QUATERNION"
    last = None
    for number, (matrix, pose) in enumerate(
        zip(cameras["K"], cameras["c2w"], strict=True), start=1
    ):
        camera.matrix_world = Matrix((WORLD_AXES @ pose @ CAMERA_AXES).tolist())
        if last is not None:
            camera.rotation_quaternion.make_compatible(last)
        last = camera.rotation_quaternion.copy()
        lens = lens_of(matrix, size, oblong)
        for name, value in lens.items():
            setattr(data, name, value)
            data.keyframe_insert(name, frame=number)
        camera.keyframe_insert("location", frame=number)
        camera.keyframe_insert("rotation_quaternion", frame=number)
    return camera


def lens_of(matrix: Any, size: tuple[float, float], oblong: float) -> dict[str, float]:
    """The camera's settings for intrinsics [3,3] in pixels of ``size`` (width, height)."""
    width, height = size
    return {
        "lens": float(matrix[0, 0]) * SENSOR_MM / width,
        # Blender shifts in shares of the fitted side, which is the width here.
        "shift_x": (width / 2 - float(matrix[0, 2])) / width,
        "shift_y": (float(matrix[1, 2]) - height / 2) / width * oblong,
    }


def pixel_height(matrices: Any) -> float:
    """Height over width of the scene's pixels. Blender has one focal length, so where estimated
    ones [T,3,3] differ across and down, pixels are oblong; they cannot change over time."""
    return float(np.median(matrices[:, 0, 0] / matrices[:, 1, 1]))


def read_points(file: Path) -> tuple[Any, Any]:
    """Places [M,3] and colours [M,3] of 0 to 255 of the binary PLY that lies beside this script."""
    body = file.read_bytes().split(b"end_header\n", 1)[1]
    rows = np.frombuffer(body, np.dtype([("place", "<f4", 3), ("colour", "u1", 3)]))
    return rows["place"], rows["colour"]


def add_points(collection: Any, points: Any, colours: Any) -> None:
    """The points as vertices with colours that a material shows."""
    turned = points @ WORLD_AXES[:3, :3].T
    mesh = bpy.data.meshes.new("Flythrough points")
    mesh.vertices.add(len(turned))
    mesh.vertices.foreach_set("co", turned.astype(np.float32).ravel())
    shades = np.ones((len(turned), 4), np.float32)
    shades[:, :3] = colours / 255.0
    attribute = mesh.color_attributes.new("Col", "BYTE_COLOR", "POINT")
    attribute.data.foreach_set("color_srgb", shades.ravel())
    mesh.update()
    collection.objects.link(bpy.data.objects.new("Flythrough points", mesh))


def add_background(camera: Any, video: Path, frames: int) -> None:
    """The video in the camera's view."""
    image = bpy.data.images.load(str(video))
    image.source = "MOVIE"
    camera.data.show_background_images = True
    background = camera.data.background_images.new()
    background.image = image
    background.image_user.frame_start = 1
    background.image_user.frame_duration = frames
    background.image_user.use_auto_refresh = True
    background.alpha = 1.0


if __name__ == "__main__":
    build(Path(__file__).resolve().parent)
