"""Material of the stages: clips of worlds and of folders, weights to start from, checkpoints."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from tiny_stages import LATENT, TEXT, recipe_text, write_clips
from torch import Tensor, nn

from flythrough import seeds
from flythrough.errors import InputError, WeightsError
from flythrough.media.image import Photo, fit
from flythrough.media.video import write_video
from flythrough.models.catalog import ModelDefaults, ModelFolder, find_model
from flythrough.models.loading import load_transformer
from flythrough.models.text import PromptEncoder, byte_tokenizer, new_text_encoder
from flythrough.training.helios.build import load_network
from flythrough.training.helios.clip_folder import (
    ClipFolder,
    captioned_videos,
    check_clips,
    covering,
    encode_video,
    windows_around,
)
from flythrough.training.helios.export import write_model
from flythrough.training.helios.networks import start_from_wan
from flythrough.training.helios.plan import HeliosRun, check_run
from flythrough.training.helios.recipe import read_recipe
from flythrough.training.helios.recipe_tables import Worlds
from flythrough.training.helios.worlds import WorldSource
from flythrough.training.latents import EncodedClips
from flythrough.training.loop import LoopSettings
from flythrough.training.players import Player
from flythrough.training.run_folder import alone, write_identity
from flythrough.training.trainer import Trainer

CPU = torch.device("cpu")
SIZE = (LATENT[0], *LATENT[2:])


def test_a_folders_epochs_share_out_all_clips(tmp_path: Path) -> None:
    files = check_clips(write_clips(tmp_path, 4), SIZE, TEXT)
    assert len(files) == 4
    texts = [load_file(file)["prompt_embeds"] for file in files]
    plain = torch.zeros(1, *TEXT)
    clips = ClipFolder(files, plain, batch=1, seed=1, ranks=2)

    def number(step: int, rank: int) -> int:
        found = clips(step, rank).embedding[0]
        return next(i for i, text in enumerate(texts) if torch.equal(text, found))

    epochs = [[number(s, r) for s in (2 * e, 2 * e + 1) for r in (0, 1)] for e in range(4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    texts_of = [ClipFolder(files, plain, batch=1, seed=1, ranks=n).prompt(5) for n in (1, 2)]
    assert torch.equal(texts_of[0], texts_of[1])
    first = clips(5, 1)
    again = ClipFolder(files, plain, batch=1, seed=1, ranks=2)(5, 1)
    for name in ("past", "prefix", "target", "embedding"):
        assert torch.equal(getattr(first, name), getattr(again, name))


def test_later_asks_for_windows_with_a_past(tmp_path: Path) -> None:
    files = check_clips(write_clips(tmp_path, 3), SIZE, TEXT)
    clips = ClipFolder(files, torch.zeros(1, *TEXT), batch=3, seed=1, ranks=1)
    lengths = [len(load_file(file)["latents"]) for file in files]
    for step in range(4):
        material = clips(step, 0, later=True)
        has_past = material.prefix.flatten(1).any(1)
        assert int(has_past.sum()) == sum(n > 1 for n in lengths)
    windows = load_file(files[2])["latents"]
    found = [t for t in clips(0, 0).target if any(torch.equal(t, w) for w in windows)]
    assert len(found) == 1
    assert windows_around(windows, 1)[0].shape == (16, 19, 8, 16)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"latents": torch.zeros(1, 16, 9, 8, 8)}, "is not an encoded video"),
        (
            {"latents": torch.zeros(1, 16, 9, 8, 8), "prompt_embeds": torch.zeros(TEXT)},
            r"has latents \[1, 16, 9, 8, 8\]",
        ),
        (
            {"latents": torch.zeros(1, *LATENT), "prompt_embeds": torch.zeros(5, 5)},
            r"has prompt features \[5, 5\]",
        ),
    ],
)
def test_clips_of_another_shape_are_refused(
    tensors: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(InputError, match=message):
        check_clips(tmp_path, SIZE, TEXT)
    (tmp_path / "clip.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not an encoded video"):
        check_clips(tmp_path, SIZE, TEXT)


def test_videos_need_captions(tmp_path: Path) -> None:
    (tmp_path / "one.mp4").touch()
    with pytest.raises(InputError, match=r"one\.mp4 has no caption; write it into"):
        captioned_videos(tmp_path)
    (tmp_path / "one.txt").write_text("a lake\n")
    assert captioned_videos(tmp_path) == [(tmp_path / "one.mp4", "a lake")]


def test_frames_cover_the_size_and_lose_their_edges(tmp_path: Path) -> None:
    frames = np.zeros((2, 100, 400, 3), np.uint8)
    frames[:, :, 95:305] = 255
    video = covering(frames, (64, 128))
    assert video.shape == (3, 2, 64, 128)
    assert float(video.min()) > 0.999  # 200 columns in the middle
    noise = np.random.default_rng(3).integers(0, 255, (1, 90, 150, 3), np.uint8)
    photo = fit(Photo(noise[0], None, tmp_path, ""), 64, 128).pixels  # as inference sees it
    assert np.array_equal((covering(noise, (64, 128))[:, 0].permute(1, 2, 0) * 255).round(), photo)


def test_worlds_give_every_micro_batch_its_own_clips() -> None:
    asked: list[tuple[int, int]] = []

    def refill(number: int, process: int) -> EncodedClips:
        asked.append((number, process))
        draw = seeds.generator(5, number, process)
        tokens = torch.randint(3, 40, (2, 6), generator=draw)
        latents = torch.randn(2, 2, 16, 9, 4, 4, generator=draw)
        first = latents[:, 0, :, :1]
        return EncodedClips(first, first, latents, tokens, torch.ones_like(tokens))

    encoder = new_text_encoder(layers=1, d_model=16, heads=1, d_kv=16, d_ff=16)
    prompts = PromptEncoder(encoder, byte_tokenizer())
    settings = Worlds(clips=2, every=2, capacity=4)

    def source() -> WorldSource:
        plain = torch.zeros(1, 6, 16)
        return WorldSource(refill, prompts, plain, settings, batch=2, seed=3)

    made = source()
    batches = [[made(step, rank) for rank in (0, 1)] for step in range(6)]
    assert not torch.equal(batches[0][0].target, batches[0][1].target)
    late = source()(5, 1)
    assert torch.equal(late.target, batches[5][1].target)
    assert torch.equal(late.embedding, batches[5][1].embedding)
    assert late.embedding.shape == (2, 6, 16)
    assert {rank for _, rank in asked} == {0, 1}
    alone = source()  # a process that has the second share only
    assert torch.equal(alone(4, 1).target, batches[4][1].target)
    assert torch.equal(source().prompt(3), batches[1][0].embedding[1:])
    later = source()(0, 0, later=True)
    assert later.past.shape[2] == 10  # the still frame and the first chunk


def test_wan_becomes_helios_with_the_same_velocity() -> None:
    torch.manual_seed(0)
    wan = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=16, freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    )  # fmt: skip
    helios = start_from_wan(wan)
    x, text, t = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 5, 16), torch.tensor([500.0])
    with torch.no_grad():
        wanted = wan(x, t, text, return_dict=False)[0]
        found = helios(x, t, text, indices_hidden_states=torch.arange(3)[None])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    # A constant history gives a mid or long token what it gives a short one.
    still = torch.randn(1, 4, 1, 2, 2).repeat(1, 1, 4, 4, 4)
    with torch.no_grad():
        short = helios.patch_short(still)[:, 0]
        assert torch.allclose(helios.patch_mid(still)[:, 0], short, atol=1e-5)
        assert torch.allclose(helios.patch_long(still)[:, 0], short, atol=1e-5)


def test_wan_in_bfloat16_keeps_what_a_helios_folder_keeps(tmp_path: Path) -> None:
    folder = tmp_path / "wan" / "transformer"
    WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=16, freq_dim=32, ffn_dim=32, num_layers=1, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    ).save_pretrained(folder)  # fmt: skip
    file = tmp_path / "1.toml"
    file.write_text(recipe_text("1").replace('"fp32"', '"bf16"'))
    recipe = read_recipe(str(file), "1")
    network = load_network(ModelFolder("wan", tmp_path / "wan", ModelDefaults()), recipe, CPU)
    network.save_pretrained(tmp_path / "helios")
    loaded = load_transformer(tmp_path / "helios", torch.bfloat16)
    kinds = {name: value.dtype for name, value in network.named_parameters()}
    assert kinds == {name: value.dtype for name, value in loaded.named_parameters()}
    assert set(kinds.values()) == {torch.float32, torch.bfloat16}


class OneWeight:
    """A task with one weight that shall become 3."""

    def __init__(self, name: str = "one", size: int = 1, ema: float = 0.0) -> None:
        self.name = name
        layer = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(layer.weight)
        self.networks = nn.ModuleDict({"layer": layer})
        settings = LoopSettings(
            steps=1, learning_rate=0.1, warmup=0, final_ratio=1.0, ema=ema, weight_decay=0.0
        )
        self.players = (Player("p", list(layer.parameters()), settings, every=2),)

    def shards(self) -> list[tuple[nn.Module, list[nn.Module]]]:
        return []

    def losses(self, player: str, step: int, rank: int) -> dict[str, Tensor]:
        assert player == "p"
        assert step % 2 == 0
        weight = self.networks["layer"].weight
        return {"total": (weight.sum() - 3 - rank).square()}

    def export(self, folder: Path) -> None:
        raise AssertionError(folder)


def test_rhythm_and_micro_batches(tmp_path: Path) -> None:
    task = OneWeight()
    settings = LoopSettings(steps=3, learning_rate=1.0, log_every=1)
    trainer = Trainer(task, settings, tmp_path, CPU, accumulate=2)
    weight = task.networks["layer"].weight
    trainer.gradients(task.players[0])
    assert float(weight.grad) == pytest.approx(-7.0)  # mean of -2 * 3 and -2 * 4
    weight.grad = None
    seen: list[float] = []
    trainer.run(lambda _record: seen.append(float(weight.detach())))
    assert seen == pytest.approx([0.1, 0.1, 0.2], abs=1e-3)


def test_gradients_that_are_no_numbers_stop_a_run_before_its_weights(tmp_path: Path) -> None:
    task = OneWeight()
    trainer = Trainer(task, LoopSettings(steps=1, learning_rate=1.0), tmp_path, CPU)
    task.networks["layer"].weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(InputError, match=r"gradients of p became .* in step 1"):
        trainer.run()
    assert float(task.networks["layer"].weight.detach()) == 0.0
    assert not trainer.checkpoint.exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    settings = LoopSettings(steps=1, learning_rate=1.0)
    Trainer(OneWeight(), settings, tmp_path, CPU).run()
    for other, message in (
        (OneWeight("two"), "is of one, not of two"),
        (OneWeight(size=2), "does not fit weight 0 of p"),
        (OneWeight(ema=0.9), "does not fit weight 0 of p"),
    ):
        with pytest.raises(WeightsError, match=message):
            Trainer(other, settings, tmp_path, CPU).resume()
    (tmp_path / "checkpoint.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="delete it to start anew"):
        Trainer(OneWeight(), settings, tmp_path, CPU).resume()
    with pytest.raises(InputError, match="give ddp or fsdp"):
        Trainer(OneWeight(), settings, tmp_path, CPU, strategy="zero")  # type: ignore[arg-type]


def test_parts_of_a_folder_of_links_become_files(tiny_model: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    shutil.copytree(tiny_model, blobs)
    for file in [path for path in blobs.rglob("*") if path.is_file()]:
        link = snapshot / file.relative_to(blobs)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(file, link.parent))
    recipe_file = tmp_path / "1.toml"
    recipe_file.write_text(recipe_text("1"))
    recipe = read_recipe(str(recipe_file), "1")
    network = load_transformer(snapshot / "transformer", torch.float32)
    for _ in range(2):  # an export that is made again
        write_model(tmp_path / "model", network, "none", recipe, snapshot, keep=True)
    copies = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert not any(path.is_symlink() for path in copies)
    for part in ("vae", "text_encoder", "tokenizer"):
        for file in (blobs / part).iterdir():
            assert (tmp_path / "model" / part / file.name).read_bytes() == file.read_bytes()
    assert find_model(str(tmp_path / "model")).path == tmp_path / "model"


def test_a_run_does_not_start_from_what_it_will_write(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(tiny_model)
    recipe = tmp_path / "1.toml"
    recipe.write_text(recipe_text("1"))
    asked = HeliosRun(
        stage="1",
        folder=tmp_path / "run",
        recipe=str(recipe),
        base=str(tiny_model),
        data=write_clips(tmp_path / "clips"),
    )
    with pytest.raises(InputError, match=r"--base .* is where this run writes"):
        check_run(asked)


def test_a_run_goes_on_with_the_models_and_data_it_began_with(
    tiny_model: Path, tmp_path: Path
) -> None:
    recipe, base, folder = tmp_path / "1.toml", tmp_path / "base", tmp_path / "run"
    recipe.write_text(recipe_text("1"))
    shutil.copytree(tiny_model, base)
    clips = write_clips(tmp_path / "clips")
    asked = HeliosRun(stage="1", folder=folder, recipe=str(recipe), base=str(base), data=clips)
    write_identity(folder, check_run(asked).identity)
    (folder / "checkpoint.safetensors").touch()
    assert check_run(asked).identity["score_digest"] is None
    (clips / "clip1.safetensors").unlink()
    with pytest.raises(InputError, match="was started with data = "):
        check_run(asked)
    write_clips(clips)
    config = base / "transformer" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(InputError, match="was started with base_digest = "):
        check_run(asked)


def test_two_runs_cannot_work_in_one_folder(tmp_path: Path) -> None:
    with alone(tmp_path, 0):
        with pytest.raises(InputError, match="Another process trains in"), alone(tmp_path, 0):
            raise AssertionError
        with alone(tmp_path, 1):  # a further process of the run that holds it
            pass
    with alone(tmp_path, 0):
        pass


class CountingCodec:
    """Latents of zeros; counts what it encoded."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        return torch.zeros(1, 16, 9, pixels.shape[-2] // 8, pixels.shape[-1] // 8)


def test_latents_of_changed_videos_and_captions_are_made_again(tmp_path: Path) -> None:
    codec, video, target = CountingCodec(), tmp_path / "a.mp4", tmp_path / "a.safetensors"
    encoder = new_text_encoder(layers=1, d_model=16, heads=1, d_kv=16, d_ff=16)
    prompts = PromptEncoder(encoder, byte_tokenizer())

    def film(seed: int) -> None:
        frames = np.random.default_rng(seed).integers(0, 255, (33, 64, 64, 3), np.uint8)
        write_video(video, frames, fps=8)

    def encoded(caption: str, model: str = "one") -> int:
        before = codec.calls
        encode_video(
            video, caption, target, codec, prompts,  # type: ignore[arg-type]
            size=(64, 64), max_length=6, dtype=torch.float32, device=CPU, model=model,
        )  # fmt: skip
        return codec.calls - before

    film(1)
    assert [encoded("a lake"), encoded("a lake")] == [1, 0]
    assert [encoded("a hill"), encoded("a hill")] == [1, 0]
    assert encoded("a hill", model="two") == 1
    film(2)
    assert encoded("a hill", model="two") == 1
    target.write_bytes(b"cut")
    assert encoded("a hill", model="two") == 1


def test_latents_of_a_removed_video_are_left_out(tmp_path: Path) -> None:
    write_clips(tmp_path, 3)
    files = [tmp_path / "clip0.safetensors"]
    assert check_clips(tmp_path, SIZE, TEXT, files) == files
