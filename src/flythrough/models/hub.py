"""Published models on this machine and their way here from the model hub. Imports no torch.

Files go to the hub's own cache, which diffusers and other tools share, or to a folder of choice.
The same command continues a download that broke off.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from flythrough.errors import FlythroughError, WeightsError
from flythrough.models.catalog import bundled_folder, disk_bytes
from flythrough.models.parts import has_all_files
from flythrough.models.published import Entry

_SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Local:
    """A model on this machine: its folder, its commit if known, and whether files are missing."""

    path: Path
    revision: str | None
    complete: bool

    def size(self) -> int:
        """Bytes on disk."""
        return disk_bytes(self.path)


@dataclass(frozen=True)
class Remote:
    """What the hub holds: the commit, and the bytes of every file that is wanted."""

    revision: str
    files: dict[str, int]


@dataclass(frozen=True)
class Fetch:
    """What a download would bring: ``lacking`` bytes into ``place``, the folder in the hub's cache,
    on whose disk ``free`` bytes are free; ``begun`` if some of it is here."""

    lacking: int
    place: Path
    free: int
    begun: bool

    @property
    def fits(self) -> bool:
        return self.lacking <= self.free


def find_local(entry: Entry) -> Local | None:
    """The model in the package or the hub's cache, at the pinned revision if that is there."""
    if entry.bundled:
        return Local(bundled_folder(), None, True)
    if entry.repository is None:
        return None
    storage = cache_folder(entry)
    for revision in (entry.revision, _main(storage)):
        folder = storage / "snapshots" / str(revision)
        if revision and folder.is_dir():
            return Local(folder, revision, is_complete(entry, folder))
    return None


def is_complete(entry: Entry, folder: Path) -> bool:
    """Whether every file of the model is in ``folder``; contents are not looked at."""
    if entry.kind == "model":
        return has_all_files(folder)
    return all((folder / file).is_file() for file in entry.parts)


def foreseen_fetch(entry: Entry, size: int | None = None) -> Fetch:
    """What :func:`pull` would fetch into the cache, as far as that is known without asking the hub:
    ``size`` bytes (None: those that the entry states) less the files of its commit that are here
    and what was begun."""
    size = entry.size if size is None else size
    assert size is not None
    storage, local = cache_folder(entry), find_local(entry)
    have = _begun(storage / "blobs")
    if local is not None and local.revision == entry.revision:
        whole = (file for file in local.path.rglob("*") if file.is_file())
        have += sum(f.stat().st_size for f in whole if _wanted(entry, f.relative_to(local.path)))
    free = shutil.disk_usage(_existing(storage)).free
    return Fetch(max(0, size - have), storage, free, have > 0)


def pull(entry: Entry, to: Path | None = None) -> Local:
    """Fetch a model, continuing an earlier attempt; what is here and complete is left alone.

    Args:
        to: a folder for the files; the hub's cache by default.

    Raises:
        WeightsError: it is not on the hub, the hub cannot be reached or refuses, the disk is too
            small, or the download was interrupted.
    """
    if entry.bundled and to is not None:
        raise WeightsError(f"{entry.name} comes with Flythrough, so --to has no effect; drop it.")
    local = find_local(entry)
    if to is None and local and local.complete and local.revision in (entry.revision, None):
        return local
    if entry.repository is None:
        raise WeightsError(
            f"{entry.name} is not on the model hub; fetch {entry.parts[0]} from {entry.page}."
        )
    if to is not None and to.exists() and not to.is_dir():
        raise WeightsError(f"--to {to} is a file; name a folder.")
    with _explained(entry):
        remote = _look_up(entry)
        _check_space(entry, remote, to)
        folder = _download(entry, to)
    return Local(folder, remote.revision, _checked_complete(entry, folder))


def _look_up(entry: Entry) -> Remote:
    from huggingface_hub import HfApi

    found = HfApi().model_info(
        str(entry.repository),
        revision=entry.revision,
        timeout=_SECONDS_TO_ANSWER,
        files_metadata=True,
    )
    wanted = {
        file.rfilename: int(file.size or 0)
        for file in found.siblings or ()
        if _wanted(entry, Path(file.rfilename))
    }
    return Remote(str(found.sha or entry.revision), wanted)


def _wanted(entry: Entry, file: Path) -> bool:
    """Whether a file of the repository belongs to the entry."""
    return any(fnmatch(file.as_posix(), pattern) for pattern in entry.patterns)


def _check_space(entry: Entry, remote: Remote, to: Path | None) -> None:
    storage = cache_folder(entry)
    here = storage / "snapshots" / remote.revision if to is None else to
    begun = storage / "blobs" if to is None else to / ".cache" / "huggingface" / "download"
    lacking = sum(
        size
        for name, size in remote.files.items()
        if not (here / name).is_file() or (here / name).stat().st_size != size
    )
    partial = _begun(begun)
    place = _existing(_cache() if to is None else to)
    free = shutil.disk_usage(place).free
    if lacking - partial > free:
        raise WeightsError(
            f"{entry.name} needs {(lacking - partial) / 1e9:.1f} GB, but only {free / 1e9:.1f} GB "
            f"are free in {place}; make room or choose another disk with --to."
        )


def _begun(folder: Path) -> int:
    """Bytes of files that a download left half done in ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*.incomplete"))


def _existing(place: Path) -> Path:
    """The first folder on the way up from ``place`` that is there."""
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return place


def _download(entry: Entry, to: Path | None) -> Path:
    from huggingface_hub import snapshot_download

    # Without a revision the cache notes which commit was the newest; find_local reads that.
    return Path(
        snapshot_download(
            str(entry.repository),
            revision=entry.revision,
            allow_patterns=entry.patterns,
            local_dir=to,
        )
    )


def _checked_complete(entry: Entry, folder: Path) -> bool:
    if not is_complete(entry, folder):
        raise WeightsError(
            f"{entry.repository} was fetched to {folder}, but does not hold all of "
            f"{', '.join(entry.parts)}; see `flythrough models check`."
        )
    return True


@contextmanager
def _explained(entry: Entry) -> Iterator[None]:
    """Turn what can go wrong on the way into one sentence."""
    again = f"run `flythrough models pull {entry.name}` again"
    try:
        yield
    except FlythroughError:
        raise
    except KeyboardInterrupt:
        raise WeightsError(
            f"The download of {entry.name} was interrupted; {again}, it continues where it stopped."
        ) from None
    except Exception as error:
        raise WeightsError(_sentence(entry, error, again)) from error


def _sentence(entry: Entry, error: Exception, again: str) -> str:
    from huggingface_hub import errors

    where = f"https://huggingface.co/{entry.repository}"
    # A gated or unknown revision is also an unknown repository, and each is an HTTP error.
    refusals: dict[type[Exception], str] = {
        errors.GatedRepoError: (
            f"{entry.repository} asks for your consent first; accept its terms at {where}, log in "
            f"with `hf auth login` and {again}."
        ),
        errors.RevisionNotFoundError: (
            f"{entry.repository} no longer has the revision {entry.revision}; see {where}."
        ),
        errors.RepositoryNotFoundError: (
            f"The model hub has no {entry.repository}, or not for you; see {where}, log in with "
            "`hf auth login` if it is private, or use a folder you already have."
        ),
        errors.HfHubHTTPError: (
            f"The model hub refused {entry.repository} ({_status(error)}); {again} later."
        ),
    }
    for kind, sentence in refusals.items():
        if isinstance(error, kind):
            return sentence
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        return f"The disk is full; make room and {again}, it continues where it stopped."
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{entry.name} cannot be written ({_words(error)}); choose a folder with --to."
    return (
        f"The model hub cannot be reached or broke off ({_words(error)}); check the network and "
        f"{again}, or copy the model here and give its folder."
    )


def _status(error: Exception) -> str:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return _words(error) if code is None else f"HTTP status {code}"


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return text or type(error).__name__


def cache_folder(entry: Entry) -> Path:
    """The folder of an entry's repository in the hub's cache."""
    return _cache() / f"models--{str(entry.repository).replace('/', '--')}"


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _main(storage: Path) -> str | None:
    """The commit that the cache knows as the newest."""
    try:
        return (storage / "refs" / "main").read_text().strip()
    except OSError:
        return None
