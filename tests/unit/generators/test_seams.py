"""Leading a chunk over from the one before: what changes, and what never does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import flythrough as ft
from flythrough.engine.build import _sampler, build_spec
from flythrough.engine.request import GenerateRequest, check
from flythrough.errors import InputError
from flythrough.evaluation.seam import seam_score
from flythrough.generators.seams import FRAMES, GAIN, blurred, softened
from flythrough.models.catalog import find_model
from flythrough.models.codec import VideoCodec
from flythrough.rollout.rollout import Rollout
from flythrough.rollout.spec import Seams

SIZE = (48, 80)


def clip(count: int = 66) -> Tensor:
    """Something smooth that moves: [1,3,T,H,W]."""
    rows, columns = (torch.arange(n).float() for n in SIZE)
    shift = torch.arange(count).float().view(-1, 1, 1)
    wave = torch.sin((columns - shift) / 9) * torch.cos(rows.view(-1, 1) / 7)
    return (0.5 + 0.2 * wave).expand(1, 3, -1, -1, -1).clone()


def test_motion_that_goes_on_is_left_alone() -> None:
    video = clip()
    new = softened(video[:, :, 33:], video[:, :, 31:33])
    assert float((new - video[:, :, 33:]).abs().max()) < 0.005


def test_a_step_is_spread_and_nothing_else_changes() -> None:
    video = clip()
    video[:, :, 33:] += 0.1
    before = video.clone()
    new = softened(video[:, :, 33:], video[:, :, 31:33])
    assert torch.equal(video, before)
    change = (new - video[:, :, 33:]).mean((0, 1, 3, 4))
    assert float(change[0]) == pytest.approx(-0.1 * GAIN, rel=0.05)
    assert bool((change[:FRAMES].diff() > 0).all())
    assert torch.equal(new[:, :, FRAMES:], video[:, :, 33 + FRAMES :])
    joined = torch.cat([video[:, :, :33], new], dim=2)
    assert (
        seam_score(joined[0].transpose(0, 1)).score
        < 0.6 * seam_score(video[0].transpose(0, 1)).score
    )


def test_detail_stays_that_of_the_new_chunk() -> None:
    """Noise has no coarse part: it is neither copied from the old frame nor taken away."""
    source = torch.Generator().manual_seed(3)
    video = clip() + 0.05 * torch.randn(1, 3, 66, *SIZE, generator=source)
    new = softened(video[:, :, 33:], video[:, :, 31:33])
    change = float((new - video[:, :, 33:]).std())
    assert change < 0.05 * 0.1


def test_values_stay_in_range() -> None:
    video = torch.ones(1, 3, 33, *SIZE)
    new = softened(video, torch.zeros(1, 3, 2, *SIZE))
    assert float(new.max()) <= 1
    assert float(softened(video - 1, torch.ones(1, 3, 2, *SIZE)).min()) >= 0


def test_the_blur_keeps_flat_pictures_and_sums() -> None:
    assert torch.allclose(blurred(torch.full((1, 3, 20, 30), 0.3), 4.0), torch.tensor(0.3))
    dot = torch.zeros(1, 1, 41, 41)
    dot[..., 20, 20] = 1
    spread = blurred(dot, 4.0)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    rows = torch.arange(41).float() - 20
    assert float((spread.sum(3)[0, 0] * rows**2).sum()) ** 0.5 == pytest.approx(4, rel=0.05)


@pytest.fixture
def pipe(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> ft.Pipeline:
    """The throw-away model with a codec that shows its latents (its own decodes to black)."""

    def shown(_codec: VideoCodec, latents: Tensor) -> Tensor:
        count, height, width = latents.shape[2:]
        size = (4 * count - 3, 8 * height, 8 * width)
        return torch.sigmoid(functional.interpolate(latents[:, :3], size, mode="trilinear"))

    monkeypatch.setattr(VideoCodec, "decode", shown)
    return ft.load(tiny_model, device="cpu")


def made(pipe: ft.Pipeline, photo: Path, seams: Seams) -> Rollout:
    return pipe(photo, prompt="a lake", frames=66, seams=seams).rollout


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_latents_and_the_first_chunk_are_the_same(pipe: ft.Pipeline, photo: Path) -> None:
    apart, led = made(pipe, photo, "independent"), made(pipe, photo, "smooth")
    assert led.spec.settings["seams"] == "smooth"
    assert np.array_equal(apart.latents(), led.latents())
    assert np.array_equal(apart.chunks[0].frames, led.chunks[0].frames)
    first, second = apart.chunks[1].frames, led.chunks[1].frames
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(first[FRAMES:], second[FRAMES:])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_chunk_made_again_is_the_same(pipe: ft.Pipeline, photo: Path) -> None:
    rollout = pipe.start(photo, seams="smooth")
    one = pipe.step(pipe.step(rollout, "forward 0.1"), "pan left 5deg")
    again = pipe.step(one.rewind(1), "pan left 5deg")
    assert np.array_equal(one.chunks[1].frames, again.chunks[1].frames)
    assert one.digest() == again.digest()


def test_rollouts_from_before_the_option_are_decoded_apart(tiny_model: Path, photo: Path) -> None:
    request = GenerateRequest(image=photo, model=str(tiny_model), prompt="a lake")
    spec = build_spec(check(replace(request, seams="smooth")))
    folder = find_model(str(tiny_model))
    assert _sampler(spec, folder).seams == "smooth"
    old = {key: value for key, value in spec.settings.items() if key != "seams"}
    assert _sampler(replace(spec, settings=old), folder).seams == "independent"


def test_an_option_without_effect_is_refused(pipe: ft.Pipeline, photo: Path) -> None:
    with pytest.raises(InputError, match="one chunk"):
        pipe(photo, prompt="a lake", frames=33, seams="smooth")
    with pytest.raises(InputError, match="unknown"):
        pipe(photo, prompt="a lake", seams="soft")  # type: ignore[arg-type]
