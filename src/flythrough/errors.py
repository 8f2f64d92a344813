"""One family of errors: what was given, what was expected, what to do next.

Every message is a single sentence that names the value, the rule and the remedy. The command line
prints it as it stands and leaves with ``exit_status``.
"""

from __future__ import annotations


class FlythroughError(Exception):
    """Base of all errors that Flythrough raises on purpose."""

    exit_status = 1


class FaultError(FlythroughError):
    """Something failed that the user's input did not cause (a full disk, a lost file)."""


class InputError(FlythroughError, ValueError):
    """The user's input breaks a rule; nothing was computed and nothing was written."""

    exit_status = 2


class CameraError(InputError):
    """A camera path, pose, intrinsic matrix or camera file is unusable."""


class MediaError(InputError):
    """A photo or video cannot be read, fitted or written as asked."""


class WeightsError(InputError):
    """A model folder, weight file or adapter is missing, incomplete or of the wrong kind."""


class GeometryError(InputError):
    """A depth map or estimator cannot provide what the request needs."""


class RolloutError(InputError):
    """A stored rollout cannot be read, continued or rewound as asked."""
