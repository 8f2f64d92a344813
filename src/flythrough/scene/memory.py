"""What every scene memory promises."""

from __future__ import annotations

from typing import Protocol, Self

from torch import Tensor

from flythrough.geometry.types import Geometry
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings


class SceneMemory(Protocol):
    """3D kept between chunks and rendered into target cameras. A value: it never changes."""

    def extended(self, image: Tensor, geometry: Geometry) -> Self:
        """A new memory that also knows a picture [3,H,W] in [0,1] with the geometry of that frame.

        Raises:
            GeometryError: they do not belong together.
        """
        ...

    def render(
        self,
        world_from_camera: Tensor,
        intrinsics: Tensor,
        size: tuple[int, int],
        settings: WarpSettings,
        *,
        first_is_photo: bool = False,
    ) -> RenderedView:
        """What cameras [T,4,4] with intrinsics [T,3,3] see at ``size`` = (height, width).

        Intrinsics are in pixels of that size, centres at half-integers. With ``first_is_photo``
        frame 0 is the first picture itself.

        Raises:
            GeometryError: the memory holds nothing that can be rendered, or shapes disagree.
        """
        ...
