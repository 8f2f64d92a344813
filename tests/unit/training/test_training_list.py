"""Lists of training videos as users write them, and stored prompt embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.training.data_csv import read_training_list
from flythrough.training.prompt_store import PromptStore, prompt_key


def written(folder: Path, text: str) -> Path:
    file = folder / "data.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_published_list(tmp_path: Path) -> None:
    file = written(tmp_path, 'Video_Path,prompts\ncar.mp4,"a car, turning"\n')
    found = read_training_list(file)
    (video,) = found.videos
    assert (found.video_column, found.prompt_column) == ("video_path", "prompts")
    assert (video.id, video.caption) == ("online_000000", "a car, turning")
    assert video.prompt == "camctl23x. a car, turning"
    assert video.located(tmp_path) == tmp_path / "car.mp4"


def test_columns_in_order_of_preference_and_by_name(tmp_path: Path) -> None:
    rows = [{"path": "a", "video": "b", "text": "c", "caption": "d", "id": "one"}]
    found = read_training_list(rows, trigger="")
    assert (found.videos[0].video, found.videos[0].prompt) == ("b", "d")
    chosen = read_training_list(rows, video_column="path", prompt_column="Text")
    assert (chosen.videos[0].video, chosen.videos[0].caption) == ("a", "c")
    assert chosen.videos[0].id == "one"
    several = [{**rows[0], "id": str(n)} for n in range(5)]
    assert len(read_training_list(several, limit=3).videos) == 3
    del tmp_path


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"clip": "a", "prompt": "b"}], {}, "no column for videos; call it 'video'"),
        ([{"video": "a", "words": "b"}], {}, "no column for captions; call it 'prompt'"),
        ([{"video": "a", "prompt": "b"}], {"video_column": "clip"}, "no column 'clip' for videos"),
        ([{"video": "a", "prompt": " "}], {}, "row 1 has nothing in the column 'prompt'"),
        ([{"video": "a", "prompt": "b", "id": "x"}] * 2, {}, "two rows have the id 'x'"),
        ([{"video": "a", "prompt": "b"}], {"limit": 0}, "limit of 0"),
        ([], {}, "no rows"),
    ],
)
def test_lists_that_cannot_be_used(
    rows: list[dict[str, str]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_training_list(rows, **options)


@pytest.mark.parametrize(
    ("text", "place"),
    [("file:///films/a%20b.mp4", Path("/films/a b.mp4")), ("/films/a.mp4", Path("/films/a.mp4"))],
)
def test_places_of_videos(text: str, place: Path) -> None:
    (video,) = read_training_list([{"video": text, "prompt": "x"}]).videos
    assert video.located(Path("/root")) == place


def test_addresses_are_not_fetched() -> None:
    (video,) = read_training_list([{"url": "https://example.org/a.mp4", "prompt": "x"}]).videos
    with pytest.raises(InputError, match="is an address; download it"):
        video.located(Path())


class Encoder:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: str) -> Tensor:
        self.asked.append(prompt)
        return torch.full((1, 4, 2), float(len(prompt)))


def test_embeddings_are_made_once(tmp_path: Path) -> None:
    encode = Encoder()
    store = PromptStore(tmp_path / "cache", "fingerprint")
    first = store.embedding("a lake", encode)
    assert torch.equal(store.embedding("a lake", encode), first)
    again = PromptStore(tmp_path / "cache", "fingerprint")
    assert torch.equal(again.embedding("a lake", encode), first)
    assert encode.asked == ["a lake"]
    PromptStore(tmp_path / "cache", "another").embedding("a lake", encode)
    again.embedding("a sea", encode)
    assert encode.asked == ["a lake", "a lake", "a sea"]


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    encode = Encoder()
    (tmp_path / f"{prompt_key('m', 'x')}.safetensors").write_bytes(b"broken")
    assert PromptStore(tmp_path, "m").embedding("x", encode).shape == (1, 4, 2)
    PromptStore(tmp_path, "m").embedding("x", encode)
    assert encode.asked == ["x"]


def test_keys_tell_model_prompt_and_length_apart() -> None:
    keys = {prompt_key(*given) for given in (("m", "x"), ("n", "x"), ("m", "y"), ("m", "x", 64))}
    assert len(keys) == 4
