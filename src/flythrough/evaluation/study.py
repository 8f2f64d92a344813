"""A study: clips, the rows that are made of each, and one loop that makes, measures and keeps them.

Each video is measured as soon as it is made and its figures are kept in a file of their own, so a
run that was stopped goes on where it was. Figures of references and controls do not depend on the
model and serve every model that is judged in the same folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flythrough.errors import InputError
from flythrough.evaluation.columns import Column
from flythrough.evaluation.portions import Portion
from flythrough.evaluation.rows import Row
from flythrough.evaluation.truth import Case, Source, kept_truth
from flythrough.rollout.canonical import canonical_json, digest_of

if TYPE_CHECKING:
    import numpy as np

    from flythrough.evaluation.measures import Figures
    from flythrough.evaluation.truth import Truth

Notify = Callable[[str], None]
Progress = Callable[[int, str, float], None]
"""Called with the number of finished videos, the one at work and its finished share."""

STRIP = 5
"""Frames of each video that the contact sheets show."""


@dataclass(frozen=True)
class Track:
    """Clips of one kind, the rows made of each, and how they are shown.

    ``plots`` are curves of ``measures.Figures`` with their titles; ``anchored`` as in
    ``measures.Judge``; ``others`` are clips that controls may be taken from; ``portions``
    stretches of every clip that are also judged by themselves.
    """

    name: str
    title: str
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    plots: tuple[tuple[str, str], ...] = ()
    anchored: bool = False
    others: tuple[Case, ...] = ()
    portions: tuple[Portion, ...] = ()


@dataclass(frozen=True)
class Study:
    """Everything that a run and its report need to know.

    ``configuration`` is what the figures of generated rows depend on beside clip and row;
    ``about`` sentences for the head of the page; ``not_run`` what the protocol would ask for and
    this run does not do; ``size`` (height, width).
    """

    name: str
    title: str
    folder: Path
    size: tuple[int, int]
    tracks: tuple[Track, ...]
    source: Callable[[Case], Source]
    configuration: Mapping[str, object]
    about: tuple[str, ...] = ()
    not_run: tuple[str, ...] = field(default=())

    @property
    def videos(self) -> int:
        return sum(len(track.rows) * len(track.cases) for track in self.tracks)

    @property
    def cases(self) -> tuple[Case, ...]:
        return tuple(case for track in self.tracks for case in track.cases)

    def file(self, row: Row, case: Case) -> Path:
        """Where the figures of one video lie; its frames for people lie beside it (.jpg)."""
        return self.folder / "clips" / f"{case.name}-{row.name}.json"


class Maker(Protocol):
    """Makes what cannot be made from the truth alone."""

    def video(self, row: Row, truth: Truth, report: Callable[[float], None]) -> np.ndarray:
        """The frames uint8 [T,H,W,3] of ``row``."""
        ...

    def digest(self, row: Row, case: Case) -> str:
        """Of what ``row`` depends on beside the study's configuration."""
        ...


def run_study(study: Study, maker: Maker, progress: Progress) -> Iterator[tuple[Figures, bool]]:
    """Yields every video's figures, clip after clip, and whether they were kept from before."""
    (study.folder / "clips").mkdir(parents=True, exist_ok=True)
    done = 0
    for track in study.tracks:
        for case in track.cases:
            bench = _Bench(study, track, case, maker)
            for row in track.rows:
                label = f"{case.name}: {row.name}"
                progress(done, label, 0.0)
                found = bench.kept(row)
                if found is not None:
                    yield found, True
                elif bench.applies(row):

                    def report(share: float, done: int = done, label: str = label) -> None:
                        progress(done, label, share)

                    result = bench.made(row, report)
                    if result is not None:
                        yield result, False
                done += 1
                progress(done, label, 0.0)


class _Bench:
    """One clip at work; its truth is rendered when the first video needs it."""

    def __init__(self, study: Study, track: Track, case: Case, maker: Maker) -> None:
        self.study, self.track, self.case, self.maker = study, track, case, maker
        self.source = study.source(case)
        self._judge: object | None = None

    def kept(self, row: Row) -> Figures | None:
        from flythrough.evaluation.measures import read_figures

        file = self.study.file(row, self.case)
        return read_figures(file, self._digest(row)) if file.with_suffix(".jpg").is_file() else None

    def applies(self, row: Row) -> bool:
        from flythrough.evaluation.controls import can_fail

        if row.kind != "control":
            return True
        return can_fail(row, self._truth(), self._others())

    def made(self, row: Row, report: Callable[[float], None]) -> Figures | None:
        from flythrough.evaluation.controls import made
        from flythrough.evaluation.measures import Judge, measured
        from flythrough.media.image import write_picture
        from flythrough.media.picture import strip

        truth = self._truth()
        if not isinstance(self._judge, Judge):
            self._judge = Judge(truth, self.track.anchored, self.track.portions)
        started = time.monotonic()
        frames: np.ndarray | None
        if row.name == "truth":
            frames = truth.frames
        elif row.kind == "control" and row.name != "warp":
            frames = made(row, truth, self.source, self._other_frames)
        else:
            frames = self.maker.video(row, truth, report)
        if frames is None:
            return None
        seconds = time.monotonic() - started
        result = measured(self._judge, frames, row, self._digest(row), seconds)
        file = self.study.file(row, self.case)
        write_picture(file.with_suffix(".jpg"), strip(frames, STRIP))
        result.write(file)
        return result

    def _truth(self, case: Case | None = None) -> Truth:
        if case is not None:
            return kept_truth(self.study.source(case), case, self.study.size, self._store)
        if not hasattr(self, "_own"):
            self._own = kept_truth(self.source, self.case, self.study.size, self._store)
        return self._own

    @property
    def _store(self) -> Path:
        return self.study.folder / "truth"

    def _others(self) -> Sequence[Case]:
        return [case for case in self.track.others if case.name != self.case.name]

    def _other_frames(self) -> np.ndarray:
        return self._truth(self._others()[0]).frames

    def _digest(self, row: Row) -> str:
        from flythrough.evaluation.measures import VERSION

        state: list[object] = [VERSION, self.source.version(), asdict(self.case), row.name]
        state += [list(self.study.size), self.track.anchored]
        if self.track.portions:
            state += [[asdict(part) for part in self.track.portions], row.borders(self.case.count)]
        if row.name in ("other", "forgetful"):
            state += [asdict(case) for case in self._others()[:1]]
        if row.kind == "generated" or row.name in ("codec", "warp"):
            state += [dict(self.study.configuration), dict(row.switches)]
            state += [self.maker.digest(row, self.case)]
        return digest_of("evaluation", canonical_json(state))


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be filled.

    Raises:
        InputError: it is a file, or cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output {folder} is a file, but a folder is filled; name another.")
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"The folder {parent} cannot be written to; choose another output.")


def check_clips(clips: int, there: int, what: str = "the suite") -> None:
    """Refuse a number of clips that there are not.

    Raises:
        InputError: below 1 or above ``there``.
    """
    if not 1 <= clips <= there:
        raise InputError(
            f"--clips {clips} is out of range; {what} has {there} clips, so give 1 to {there}."
        )


def check_chunks(chunks: int) -> None:
    """Refuse a length that cannot be meant.

    Raises:
        InputError: not 1 to 100.
    """
    if not 1 <= chunks <= 100:
        raise InputError(f"--chunks {chunks} is out of range; give 1 to 100.")
