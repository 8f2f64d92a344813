"""Exact ray intersections with unit shapes, and their normals and surface coordinates.

Every primitive is a unit shape under an affine map, and an affine map keeps the ray parameter:
with a ray direction whose camera z is 1, the parameter found in the unit shape's own coordinates
*is* the z-depth. Shapes are convex, so each is an interval of the ray; slabs after Kay and Kajiya
1986, the sphere by the distance of the ray's foot (no cancellation far away).

Unit shapes (local y points down): box and room [-1,1]^3; plane y = 0 without end; sphere of
radius 1; cylinder of radius 1 along y in [-1,1]; cone with apex (0,-1,0) and base radius 1 at
y = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.worlds.world import BOX, CONE, CYLINDER, NEAR, PLANE, ROOM, SPHERE

Triple = tuple[Tensor, Tensor, Tensor]
_TINY = 1e-12  # added to directions: an exact zero would make 0 * inf
PLANE_REACH = 600.0  # metres; the ground ends here


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = d.reciprocal()
    middle = inverse * -o
    reach = inverse.abs_()
    return middle - reach, middle.add_(reach)


def _interval_hit(enter: Tensor, leave: Tensor) -> Tensor:
    return torch.where((enter <= leave) & (enter >= NEAR), enter, torch.inf)


def _box(o: Triple, d: Triple, inside: bool) -> Tensor:
    enter, leave = _slab(o[0], d[0])
    for axis in (1, 2):
        e, f = _slab(o[axis], d[axis])
        enter, leave = torch.maximum(enter, e), torch.minimum(leave, f)
    if inside:
        return torch.where((enter <= leave) & (leave >= NEAR), leave, torch.inf)
    return _interval_hit(enter, leave)


def _plane(o: Triple, d: Triple) -> Tensor:
    t = d[1].reciprocal() * -o[1]
    return torch.where((t >= NEAR) & (t < PLANE_REACH), t, torch.inf)


def _sphere(o: Triple, d: Triple) -> Tensor:
    inverse = (d[0] * d[0]).addcmul_(d[1], d[1]).addcmul_(d[2], d[2]).reciprocal_()
    foot = (d[0] * o[0]).add_(d[1] * o[1]).add_(d[2] * o[2]).mul_(inverse).neg_()
    rest = torch.addcmul(o[0], foot, d[0]).square_()
    rest.add_(torch.addcmul(o[1], foot, d[1]).square_())
    rest.add_(torch.addcmul(o[2], foot, d[2]).square_())
    span = (1 - rest).mul_(inverse)  # negative: the ray misses, and its root is not a number
    t = foot.sub_(span.sqrt())
    return torch.where(t >= NEAR, t, torch.inf)


def _cylinder(o: Triple, d: Triple) -> Tensor:
    inverse = (d[0] * d[0]).addcmul_(d[2], d[2]).reciprocal_()
    foot = (d[0] * o[0]).add_(d[2] * o[2]).mul_(inverse).neg_()
    rest = torch.addcmul(o[0], foot, d[0]).square_()
    rest.add_(torch.addcmul(o[2], foot, d[2]).square_())
    reach = (1 - rest).mul_(inverse).sqrt_()
    e, f = _slab(o[1], d[1])
    return _interval_hit(torch.maximum(foot - reach, e), torch.minimum(foot + reach, f))


def _cone(o: Triple, d: Triple) -> Tensor:
    oy, dy = (1 + o[1]) * 0.5, d[1] * 0.5  # radius along the ray
    a = (d[0] * d[0]).addcmul_(d[2], d[2]).sub_(dy * dy)
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    b = (d[0] * o[0]).add_(d[2] * o[2]).sub_(dy * oy)
    c = o[0] * o[0] + o[2] * o[2] - oy * oy
    root = torch.addcmul(b * b, a, c, value=-1).sqrt_()
    near_root, far_root = (-b - root) / a, (-b + root) / a
    low, high = torch.minimum(near_root, far_root), torch.maximum(near_root, far_root)
    # a ray steeper than the side leaves through the base: its interval has one end at infinity
    steep = a < 0
    enter = torch.where(steep, torch.where(dy > 0, high, -torch.inf), low)
    leave = torch.where(steep, torch.where(dy > 0, torch.inf, low), high)
    e, f = _slab(o[1], d[1])
    return _interval_hit(torch.maximum(enter, e), torch.minimum(leave, f))


def intersect(shape: int, origin: Triple, direction: Triple) -> Tensor:
    """First hit of rays with one kind of shape, in the shape's local coordinates.

    ``origin`` broadcasts against ``direction`` (float32). Returns the ray parameter, ``inf`` for a
    miss. Hits before NEAR do not count; a room is seen from inside, everything else from outside.
    """
    d = (direction[0] + _TINY, direction[1] + _TINY, direction[2] + _TINY)
    if shape in (BOX, ROOM):
        return _box(origin, d, inside=shape == ROOM)
    if shape == PLANE:
        return _plane(origin, d)
    if shape == SPHERE:
        return _sphere(origin, d)
    if shape == CYLINDER:
        return _cylinder(origin, d)
    return _cone(origin, d)


def describe(
    shape: Tensor, q: Triple, half: Triple
) -> tuple[Triple, Tensor, Tensor, Tensor, Tensor]:
    """Normal, texture coordinates, face and edge distance at local hit points ``q``.

    All tensors have one shape (``shape`` is float32 for cheap comparison). Returns the unscaled
    local normal, u and v in metres along the surface (v of upright faces is 0 at the base), the
    face (0 x faces and round sides, 1 z faces, 2 upper, 3 lower; float32), and the distance in
    metres to the base (to the nearest edge for a room).
    """
    x, y, z = q
    ax, ay, az = x.abs(), y.abs(), z.abs()
    flat = shape < PLANE - 0.5
    curved = shape > PLANE + 0.5
    top_box = (ay >= ax) & (ay >= az)
    cap = ((shape == CYLINDER) & (ay * ay > x * x + z * z)) | ((shape == CONE) & (y > 0.9999))
    level = torch.where(flat, top_box, cap | (shape == PLANE))
    side = ax >= az
    smooth = curved & ~level
    face_x, face_z = flat & ~level & side, flat & ~level & ~side
    sign = torch.where(shape == ROOM, -1.0, 1.0)
    nx = torch.where(smooth, x, torch.where(face_x, torch.sign(x) * sign, 0.0))
    nz = torch.where(smooth, z, torch.where(face_z, torch.sign(z) * sign, 0.0))
    round_y = torch.where(shape == SPHERE, y, torch.where(shape == CONE, -0.25 * (1 + y), 0.0))
    upright = torch.where(shape == PLANE, -1.0, torch.sign(y) * sign)
    ny = torch.where(smooth, round_y, torch.where(level, upright, 0.0))

    ball = shape == SPHERE
    # equal-area map of each half ball on a disc (Lambert): no pinch at the poles, no seam
    spread = torch.rsqrt(0.5 + 0.5 * ay)
    spread = torch.where(ball, spread, 1.0)
    flat_u, flat_v = x * half[0] * spread, z * half[2] * spread
    arc = torch.atan2(z, x) * half[0]
    u = torch.where(smooth & ~ball, arc, torch.where(face_x, z * half[2], flat_u))
    v = torch.where(level | ball, flat_v, (y - 1) * half[1])
    lower = (y > 0) & (shape != PLANE)
    face = torch.where(level, lower + 2.0, torch.where(face_z, 1.0, 0.0))
    ex, ey, ez = (1 - ax) * half[0], (1 - ay) * half[1], (1 - az) * half[2]
    least, most = torch.minimum(ex, ey), torch.maximum(ex, ey)
    second = torch.maximum(least, torch.minimum(most, ez))
    base = torch.where(shape == ROOM, second, (1 - y) * half[1])
    return (nx, ny, nz), u, v, face, base
