"""Videos in and out through PyAV: H.264, 8 bit, BT.709, one JSON object in the comment field."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from flythrough.disk import partial_name, put_in_place
from flythrough.errors import FaultError, MediaError
from flythrough.media.checks import check_input_file, check_picture, reason

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

SUFFIXES = (".mp4", ".mov", ".mkv")
DEFAULT_CRF = 16
"""x264's constant rate factor: 0 is lossless (after 4:2:0), 18 looks lossless, 51 is worst."""

_BT709, _LIMITED_RANGE = 1, 1


@dataclass(frozen=True, eq=False)
class Clip:
    """``frames`` uint8 [T,H,W,3] sRGB, read-only; ``fps`` frames a second; ``metadata`` the JSON
    object of the comment field ({} if there is none)."""

    frames: np.ndarray
    fps: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


def check_video_target(path: str | Path) -> Path:
    """Refuse an output path that cannot become a video, before any work; returns it as a Path.

    Raises:
        MediaError: unknown suffix, missing or read-only folder, or the path is itself a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(
            f"The video {path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; rename it."
        )
    if not path.parent.is_dir():
        raise MediaError(
            f"The folder {path.parent} of the video {path.name} does not exist; create it first."
        )
    if path.is_dir():
        raise MediaError(f"The video {path} is an existing folder; choose another name.")
    if not os.access(path.parent, os.W_OK):
        raise MediaError(
            f"The folder {path.parent} cannot be written to; choose another place for {path.name}."
        )
    return path


_SAME_BYTES = {"x264-params": "threads=1:lookahead-threads=1:cpu-independent=1"}
"""Equal frames give equal files: with several threads, or with what x264 chooses by processor, they
do not."""


class VideoWriter:
    """Streams frames into a video that appears under its name only when it is complete.

    Frames go to a hidden temporary file beside ``path``. It is renamed when the ``with`` block ends
    normally and removed when the block fails or nothing was written. 4:2:0 colour needs even sides,
    so the last row or column of an odd-sized frame is repeated: the file is then one pixel larger
    than the frames.

    Args:
        path: ends in .mp4, .mov or .mkv; its folder exists.
        fps: frames a second, in (0, 1000].
        metadata: JSON object kept in the comment field of the container.
        crf: quality from 0 (best, largest) to 51.

    Raises:
        MediaError: an argument is out of range, or (from ``write``) a frame does not fit.
        FaultError: the encoder or the disk failed.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        metadata: Mapping[str, Any] | None = None,
        crf: int = DEFAULT_CRF,
    ) -> None:
        self.path = check_video_target(path)
        if not (math.isfinite(fps) and 0 < fps <= 1000):
            raise MediaError(f"The frame rate {fps:g} must lie in (0, 1000]; 16 or 24 is usual.")
        if not 0 <= crf <= 51:
            raise MediaError(f"The quality factor {crf} must lie in 0 to 51; 16 is the default.")
        self.frames_written = 0
        self._fps = Fraction(fps).limit_denominator(100_000)
        self._comment = _comment(metadata or {})
        self._crf = crf
        self._partial = partial_name(self.path)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._size: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, uint8 [H,W,3] sRGB; all frames have the size of the first."""
        check_picture(frame, f"Frame {self.frames_written} of {self.path.name}")
        if self._size is not None and frame.shape != self._size:
            raise MediaError(
                f"Frame {self.frames_written} of {self.path.name} is {frame.shape[1]}x"
                f"{frame.shape[0]} but the first was {self._size[1]}x{self._size[0]}; give all "
                "frames one size."
            )
        even = _even(frame)
        try:
            if self._size is None:
                self._open(even.shape[0], even.shape[1])
                self._size = frame.shape
            self._encode(even)
        except _failures() as error:
            raise self._fault(error) from error
        self.frames_written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del error, trace
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _open(self, height: int, width: int) -> None:
        import av

        streaming = self.path.suffix.lower() != ".mkv"
        options = {"movflags": "+faststart"} if streaming else {}
        self._container = av.open(str(self._partial), "w", options=options)
        self._container.metadata["comment"] = self._comment
        self._stream = self._container.add_stream(
            "libx264", rate=self._fps, options={"crf": str(self._crf), **_SAME_BYTES}
        )
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE

    def _encode(self, frame: np.ndarray) -> None:
        import av

        assert self._container is not None
        assert self._stream is not None
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        planes = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        # A copy, because the encoder also reads the padding of rows, which the conversion leaves
        # to chance: equal frames would give unequal files.
        clean = av.VideoFrame.from_ndarray(planes.to_ndarray(), format="yuv420p")
        clean.colorspace, clean.color_range = planes.colorspace, planes.color_range
        clean.pts = self.frames_written
        self._container.mux(self._stream.encode(clean))

    def _finish(self) -> None:
        if self._container is None or self._stream is None:
            raise MediaError(f"No frame was given for {self.path}; a video needs at least one.")
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            put_in_place(self._partial, self.path)
        except _failures() as error:
            raise self._fault(error) from error

    def _discard(self) -> None:
        """Close what is still open and remove the temporary file (gone already on success)."""
        container, self._container, self._stream = self._container, None, None
        try:
            if container is not None:
                container.close()
        except _failures():
            pass  # the error that led here is already on its way to the caller
        finally:
            self._partial.unlink(missing_ok=True)

    def _fault(self, error: Exception) -> FaultError:
        return FaultError(
            f"Writing {self.path} failed ({reason(error)}); check the free space and try again."
        )


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    metadata: Mapping[str, Any] | None = None,
    crf: int = DEFAULT_CRF,
) -> int:
    """Write all ``frames`` (uint8 [H,W,3] each) as :class:`VideoWriter` does; returns their count.

    Raises:
        MediaError, FaultError: as :class:`VideoWriter`; no file is left then.
    """
    with VideoWriter(path, fps, metadata, crf) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.frames_written


def read_video(path: str | Path) -> Clip:
    """Read all frames of the first video stream, turned upright by its display matrix.

    Raises:
        MediaError: missing, a folder, empty, not a video, damaged, or without frames.
    """
    import av

    path = Path(path)
    check_input_file(path, "video")
    try:
        with av.open(str(path)) as container:
            return _decode(container, path)
    except _failures() as error:
        raise MediaError(
            f"The video {path} cannot be read ({reason(error)}); convert it to H.264 MP4."
        ) from error


def _decode(container: InputContainer, path: Path) -> Clip:
    if not container.streams.video:
        raise MediaError(f"The file {path} holds no video stream; give a video.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    frames = [_upright(f.to_ndarray(format="rgb24"), f.rotation) for f in container.decode(stream)]
    rate = stream.average_rate or stream.guessed_rate
    if not frames or not rate:
        raise MediaError(f"The video {path} holds no frames; record or convert it again.")
    if len({frame.shape for frame in frames}) > 1:
        raise MediaError(
            f"The video {path} changes its picture size on the way; convert it to one size."
        )
    pixels = np.stack(frames)
    pixels.setflags(write=False)
    return Clip(pixels, float(rate), _metadata(dict(container.metadata)))


def _failures() -> tuple[type[Exception], ...]:
    """What FFmpeg and the operating system raise."""
    from av.error import FFmpegError

    return OSError, FFmpegError


def _upright(frame: np.ndarray, rotation: int) -> np.ndarray:
    """Undo a display rotation; ``rotation`` is in degrees counter-clockwise."""
    return np.rot90(frame, round(rotation / 90) % 4)


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return frame
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _comment(metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(metadata), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MediaError(
            f"The video metadata cannot be written as JSON ({reason(error)}); use plain values."
        ) from error


def _metadata(tags: Mapping[str, str]) -> dict[str, Any]:
    for key, text in tags.items():
        if key.lower() == "comment":  # Matroska spells it in capitals
            try:
                found = json.loads(text)
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}
