"""Videos: round trip, atomicity, and refusals."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flythrough.errors import FaultError, MediaError
from flythrough.media import video
from flythrough.media.video import VideoWriter, check_video_target, read_video, write_video


def smooth(count: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Slow waves, uint8 [T,H,W,3]."""
    time, y, x = np.mgrid[:count, :height, :width]
    waves = (np.sin(x / 20 + time / 9), np.cos(y / 15 - time / 11), np.sin((x + y) / 25))
    return np.stack([127 + 100 * wave for wave in waves], axis=-1).round().astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".MP4"])
def test_a_video_reads_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    frames, metadata = smooth(), {"seed": 7, "prompt": "a lake; “dawn”", "nested": {"a": [1]}}
    path = tmp_path / f"clip{suffix}"
    assert write_video(path, iter(frames), 24.0, metadata) == len(frames)
    clip = read_video(path)
    assert clip.frames.shape == frames.shape
    assert clip.frames.dtype == np.uint8
    assert clip.fps == pytest.approx(24.0)
    assert clip.metadata == metadata
    assert psnr(clip.frames, frames) > 36
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63)])
def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = smooth(5, *size)
    write_video(tmp_path / "odd.mp4", frames, 16, crf=4)
    read = read_video(tmp_path / "odd.mp4").frames
    assert read.shape[1:3] == (48, 64)
    assert psnr(read[:, : size[0], : size[1]], frames) > 36
    assert psnr(read[:, -1], np.pad(frames, video_pad(size), mode="edge")[:, -1]) > 34


def video_pad(size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return ((0, 0), (0, 48 - size[0]), (0, 64 - size[1]), (0, 0))


@pytest.mark.parametrize("fps", [16, 23.976, 24000 / 1001, 29.97, 60, 0.5])
def test_frame_rates_survive(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "clip.mp4", smooth(4), fps)
    assert read_video(tmp_path / "clip.mp4").fps == pytest.approx(fps, rel=2e-3)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
def test_plain_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frames = np.broadcast_to(np.array(colour, np.uint8), (3, 32, 32, 3))
    write_video(tmp_path / "clip.mp4", frames, 16)
    assert np.abs(read_video(tmp_path / "clip.mp4").frames.astype(int) - colour).max() <= 2


def test_a_smaller_quality_factor_is_closer(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for name, crf in (("good.mp4", 1), ("bad.mp4", 45)):
        write_video(tmp_path / name, frames, 16, crf=crf)
    good, bad = (psnr(read_video(tmp_path / n).frames, frames) for n in ("good.mp4", "bad.mp4"))
    assert good > bad


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", smooth(1), 16)
    assert len(read_video(tmp_path / "one.mp4").frames) == 1


def test_the_video_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 16) as writer:
        for frame in smooth():
            writer.write(frame)
            assert not path.exists()
    assert path.exists()
    assert writer.frames_written == 12


def test_a_failure_leaves_the_old_video_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, smooth(3), 16)
    before = path.read_bytes()

    def failing() -> object:
        yield from smooth(3)
        raise RuntimeError("the model stopped")

    with pytest.raises(RuntimeError, match="the model stopped"):
        write_video(path, failing(), 16)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_failing_rename_is_a_fault_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*paths: Path) -> None:
        raise OSError(28, "No space left on device", *map(str, paths[:1]))

    monkeypatch.setattr(video, "put_in_place", full_disk)
    with pytest.raises(FaultError, match="No space left"):
        write_video(tmp_path / "clip.mp4", smooth(3), 16)
    assert list(tmp_path.iterdir()) == []


def test_no_frame_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="at least one"):
        write_video(tmp_path / "clip.mp4", [], 16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((48, 64, 3), np.float32), "must be uint8"),
        (np.zeros((48, 64), np.uint8), "must be uint8"),
        (np.zeros((3, 48, 64), np.uint8), "must be uint8"),
        (np.zeros((50, 64, 3), np.uint8), "64x50"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(
    tmp_path: Path, frame: np.ndarray, words: str
) -> None:
    with pytest.raises(MediaError, match=words):
        write_video(tmp_path / "clip.mp4", [*smooth(2), frame], 16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clip.avi", "must end in"),
        ("clip", "must end in"),
        ("absent/clip.mp4", "does not exist"),
        ("taken.mp4", "existing folder"),
    ],
)
def test_bad_targets_are_refused_before_any_work(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "taken.mp4").mkdir()
    for attempt in (check_video_target, lambda path: VideoWriter(path, 16)):
        with pytest.raises(MediaError, match=words):
            attempt(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["taken.mp4"]


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 5000])
def test_bad_frame_rates_are_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(MediaError, match="frame rate"):
        VideoWriter(tmp_path / "clip.mp4", fps)


@pytest.mark.parametrize("options", [{"crf": 52}, {"crf": -1}, {"metadata": {"a": object()}}])
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(MediaError):
        VideoWriter(tmp_path / "clip.mp4", 16, **options)


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "empty"), (b"these are no frames" * 50, "cannot be read")]
)
def test_unreadable_videos_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=words):
        read_video(path)


@pytest.mark.parametrize(("name", "words"), [("absent.mp4", "does not exist"), ("", "folder")])
def test_bad_sources_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        read_video(tmp_path / name)


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="no video stream"):
        read_video(path)


def test_the_display_rotation_is_applied(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = (255, 0, 0)
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    read = read_video(path).frames[0]
    assert read.shape == (64, 48, 3)
    assert read[48, 12, 0] > 200  # counter-clockwise: the top left corner is now at the bottom left
    assert read[16, 12, 0] < 50


def test_foreign_comments_are_not_metadata(tmp_path: Path) -> None:
    path = tmp_path / "foreign.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = "made on holiday"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(smooth(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    assert read_video(path).metadata == {}


def test_media_and_rollout_import_neither_torch_nor_av() -> None:
    code = (
        "import sys, flythrough.media.image, flythrough.media.video, flythrough.media.picture, "
        "flythrough.rollout.store; "
        "sys.exit(int('torch' in sys.modules or 'av' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_equal_frames_give_equal_files(tmp_path: Path) -> None:
    """Enough frames of a real picture, moved, that the encoder looks ahead and chooses."""
    picture = np.asarray(Image.open(files("flythrough") / "assets" / "example.jpg"))  # type: ignore[arg-type]
    frames = np.stack([picture[t : t + 192, 2 * t : 2 * t + 320] for t in range(66)])
    made = set()
    for name in range(6):
        write_video(tmp_path / f"{name}.mp4", frames, 16.0, {"seed": 1})
        made.add((tmp_path / f"{name}.mp4").read_bytes())
    assert len(made) == 1
