"""Fetching published models: the real hub client against a hub on this machine."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from local_hub import COMMIT, LocalHub, running_hub

from flythrough.errors import WeightsError
from flythrough.models.catalog import find_model
from flythrough.models.hub import find_local, pull
from flythrough.models.published import ENTRIES, entry_named

LORA = ENTRIES["warp-as-history-lora"]
BASE = ENTRIES["helios-base"]
FILE = LORA.parts[0]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with running_hub(monkeypatch, tmp_path / "cache") as served:
        served.files = {FILE: bytes(5000), "README.md": b"terms", "optimiser.pt": b"no"}
        yield served


def test_the_table_is_consistent() -> None:
    for name, entry in ENTRIES.items():
        assert name == entry.name == name.lower()
        assert entry.licence
        assert entry.parts
        assert entry.bundled or entry.repository or entry.page.startswith("https://")
        assert entry.revision is None or len(entry.revision) == 40
        assert entry.pinned == "not pinned" or entry.bundled or entry.revision
    assert "transformer_ode/*" not in BASE.patterns
    with pytest.raises(WeightsError, match="names are nano"):
        entry_named("helios")


def test_pull_fetches_what_is_needed_and_remembers_it(hub: LocalHub) -> None:
    assert find_local(LORA) is None
    local = pull(LORA)
    assert sorted(p.name for p in local.path.iterdir()) == ["README.md", FILE]
    assert (local.path / FILE).read_bytes() == hub.files[FILE]
    assert local == find_local(LORA)
    assert (local.revision, local.complete, local.size()) == (COMMIT, True, 5005)


def test_a_pinned_model_that_is_here_needs_no_hub(hub: LocalHub) -> None:
    pinned = replace(LORA, revision=COMMIT)
    local = pull(pinned)
    asked = len(hub.requests)
    hub.refuse = (500, "")
    assert pull(pinned) == local
    assert len(hub.requests) == asked


def test_pull_to_a_folder(hub: LocalHub, tmp_path: Path) -> None:
    local = pull(LORA, tmp_path / "here")
    assert local.path == tmp_path / "here"
    assert (tmp_path / "here" / FILE).read_bytes() == hub.files[FILE]
    assert find_local(LORA) is None


def test_a_broken_transfer_goes_on_where_it_stopped(hub: LocalHub) -> None:
    hub.files[FILE] = bytes(range(250)) * 40
    hub.cut = FILE
    local = pull(LORA)
    assert (local.path / FILE).read_bytes() == hub.files[FILE]
    ranges = [wanted for _, name, wanted in hub.requests if name == FILE]
    assert any(wanted.startswith("bytes=5000-") for wanted in ranges)


def test_another_revision_in_the_cache_is_found_but_not_taken_for_the_pinned_one(
    hub: LocalHub,
) -> None:
    local = pull(LORA)
    found = find_local(replace(LORA, revision="f" * 40))
    assert found == local
    assert found.revision == COMMIT
    hub.refuse = (404, "RevisionNotFound")
    with pytest.raises(WeightsError, match="no longer has the revision ffff"):
        pull(replace(LORA, revision="f" * 40))


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "GatedRepo"), "asks for your consent first; accept its terms at https://"),
        ((404, "RepoNotFound"), "hub has no yyfz233/warp-as-history"),
        ((503, ""), r"refused yyfz233/warp-as-history \(HTTP status 503\)"),
    ],
)
def test_refusals_are_one_sentence(hub: LocalHub, refusal: tuple[int, str], words: str) -> None:
    hub.refuse = refusal
    with pytest.raises(WeightsError, match=words) as caught:
        pull(LORA)
    assert "\n" not in str(caught.value)
    assert find_local(LORA) is None


def test_no_hub_at_all(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del hub
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="cannot be reached or broke off"):
        pull(LORA, tmp_path / "here")
    assert not (tmp_path / "here").exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"cannot be reached.*copy the model here"):
        pull(LORA)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (KeyboardInterrupt(), "interrupted; run `flythrough models pull warp-as-history-lora`"),
        (OSError(28, "No space left on device"), "disk is full"),
        (PermissionError(13, "Permission denied"), "cannot be written"),
        (ConnectionError("reset"), r"broke off \(reset\)"),
    ],
)
def test_a_download_that_stops(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, failure: BaseException, words: str
) -> None:
    assert hub.refuse is None

    def fail(*_arguments: object, **_options: object) -> str:
        raise failure

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(WeightsError, match=words):
        pull(LORA)


def test_a_small_disk_is_noticed_before_anything_is_fetched(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(9000, 4000, 5004))
    with pytest.raises(WeightsError, match="are free in"):
        pull(LORA, tmp_path / "deep" / "here")
    assert hub.requests == []
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / FILE).write_bytes(hub.files[FILE])
    pull(LORA, tmp_path / "begun")


def test_a_repository_without_the_parts_is_refused(hub: LocalHub) -> None:
    hub.files = {"README.md": b"moved"}
    with pytest.raises(WeightsError, match=f"does not hold all of {FILE}"):
        pull(LORA)
    found = find_local(LORA)
    assert found is not None
    assert not found.complete


def test_models_that_are_not_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"fetch safetensors/taew2_1.safetensors from https://"):
        pull(ENTRIES["taew2_1"])
    assert pull(ENTRIES["nano"]).complete
    with pytest.raises(WeightsError, match="--to has no effect"):
        pull(ENTRIES["nano"], tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="is a file"):
        pull(LORA, tmp_path / "file")


def test_a_fetched_model_is_found_by_its_name(hub: LocalHub, tiny_model: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"'pi3x' is no model but a part of one .*use one of nano, helios"
    ):
        find_model("pi3x")
    with pytest.raises(WeightsError, match="not on this machine; run `flythrough models pull heli"):
        find_model("helios-base")
    files = [path for path in tiny_model.rglob("*") if path.is_file()]
    hub.files = {path.relative_to(tiny_model).as_posix(): path.read_bytes() for path in files}
    local = pull(BASE)
    assert not (local.path / "geometry").exists()
    found = find_model("helios-base")
    assert (found.name, found.path) == ("helios-base", local.path)
    (local.path / "vae" / "config.json").unlink()
    with pytest.raises(WeightsError, match="only in part on this machine"):
        find_model("helios-base")
