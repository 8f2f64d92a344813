"""The figures of a video: their titles, how they are written, and in which tables they stand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A value of ``measures.Figures``, its title with unit, and how it is written."""

    field: str
    title: str
    form: str = ".2f"
    factor: float = 1.0

    def text(self, value: float | None) -> str:
        return "-" if value is None else f"{self.factor * value:{self.form}}"


ALL = {
    column.field: column
    for column in (
        Column("rotation", "R-Err (deg)"),
        Column("translation", "T-Err (% median depth)"),
        Column("measured_rotation", "R-Err, measured frames"),
        Column("measured_translation", "T-Err, measured frames"),
        Column("length_ratio", "path-length ratio"),
        Column("failure_rate", "failures (%)", ".0f", 100.0),
        Column("judged", "frames judged (%)", ".0f", 100.0),
        Column("inliers", "inliers", ".0f"),
        Column("epipolar", "epipolar error (px)"),
        Column("psnr", "PSNR (dB)", ".1f"),
        Column("ssim", "SSIM", ".3f"),
        Column("psnr_visible", "PSNR visible (dB)", ".1f"),
        Column("ssim_visible", "SSIM visible", ".3f"),
        Column("psnr_disoccluded", "PSNR dis-occluded (dB)", ".1f"),
        Column("detail", "detail visible (1 = render)"),
        Column("detail_disoccluded", "detail dis-occluded (1 = render)"),
        Column("seam", "seam"),
        Column("flicker", "flicker (levels)", "+.2f"),
        Column("motion", "motion (1 = render)"),
        Column("revisit", "revisit (dB)", ".1f"),
        Column("drift", "drift (Delta E / 100 frames)", "+.1f"),
        Column("drift_rotation", "R-Err drift (deg / 100)", "+.2f"),
        Column("drift_translation", "T-Err drift (% / 100)", "+.2f"),
        Column("drift_psnr", "PSNR drift (dB / 100)", "+.1f"),
        Column("drift_detail", "detail drift (% / 100)", "+.0f"),
        Column("worst_psnr", "worst window (dB)", ".1f"),
        Column("seconds", "seconds", ".0f"),
    )
}


def columns(*fields: str) -> tuple[Column, ...]:
    """The columns of these figures."""
    return tuple(ALL[field] for field in fields)


_POSE = (
    "rotation",
    "translation",
    "measured_rotation",
    "measured_translation",
    "length_ratio",
    "failure_rate",
)

ABLATION = columns(*_POSE, "psnr_visible", "psnr_disoccluded", "seam", "drift")
CHUNK = columns(
    *_POSE,
    "epipolar",
    "psnr_visible",
    "ssim_visible",
    "psnr_disoccluded",
    "detail",
    "detail_disoccluded",
    "motion",
    "flicker",
    "seconds",
)
LOOP = columns(
    "rotation",
    "translation",
    "failure_rate",
    "judged",
    "psnr_visible",
    "revisit",
    "seam",
    "seconds",
)
LONG = columns(
    *_POSE,
    "judged",
    "psnr_visible",
    "worst_psnr",
    "seam",
    "flicker",
    "drift",
    "drift_rotation",
    "drift_translation",
    "drift_psnr",
    "drift_detail",
    "seconds",
)
FILMED = columns(
    *_POSE, "judged", "epipolar", "psnr", "ssim", "detail", "motion", "flicker", "seam"
)

NOTES = {
    "rotation": "Poses by PnP from features of the photo lifted with its exact depth (in data sets "
    "with points triangulated from the data set's own frames and cameras); nothing is aligned or "
    "scaled.",
    "failure_rate": "A frame with fewer than 30 inliers is a failure; it stays in R-Err and T-Err, "
    "charged like a camera that never moved. The columns of measured frames leave failures out; "
    "never read them without the rate of failures.",
    "judged": "Frames whose exact picture no longer shares 60 features with the photo are left "
    "out of pose figures; features are also looked for by way of exact renders along the path.",
    "length_ratio": "Path-length ratio: through every eighth measured frame, over clips whose path "
    "moves (a pan does not). 1 is right; a still camera has 0.",
    "epipolar": "Epipolar error: median Sampson distance of matches under the requested cameras "
    "(transfer error where the camera only turns), over frames with 20 matches.",
    "psnr_visible": "PSNR is pooled over all pixels of a clip and at most 60 dB. On dis-occluded "
    "pixels plausible inventions are punished.",
    "psnr": "PSNR is pooled over all pixels of a clip, at most 60 dB; SSIM has an 11x11 window.",
    "detail": "Detail: mean absolute Laplacian over that of the exact render; below 1 is softer.",
    "motion": "Motion: share of places that dense optical flow sees move within four frames, over "
    "that of the exact render; 0 is a frozen video.",
    "flicker": "Flicker: median change from frame to frame along the known motion, above that of "
    "the exact render, in 8-bit levels.",
    "revisit": "Revisit: PSNR between two looks of the video at one place, on pixels that were out "
    "of view between them. A video whose camera does not move is consistent for nothing; read it "
    "beside the pose errors.",
    "seam": "The seam score needs two chunks, and to know their length (--chunk-frames for videos "
    "of other tools); 1 means that nobody can tell the border.",
    "drift": "Drift: slope of the distance between mean colours (CIE Lab) of video and truth on "
    "visible pixels; the other drifts are slopes of their figure. The worst window is the lowest "
    "mean PSNR over 33 frames.",
}
LAST_NOTE = (
    "The table measures geometry and stability; it says nothing about how good a picture looks."
)


def notes(shown: tuple[Column, ...]) -> tuple[str, ...]:
    """What a reader of these columns has to know."""
    fields = [column.field for column in shown]
    return (*(text for field, text in NOTES.items() if field in fields), LAST_NOTE)
