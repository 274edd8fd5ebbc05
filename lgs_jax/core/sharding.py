"""Which dimension of which array is split over which axis of the device mesh: the one place.

Dimensions have logical names. `RULES` says over which axes of the mesh (`training.mesh`) a name is
split, `BATCH_ARRAYS` which names the arrays of a batch have; nothing else in the package names an
axis of the mesh beside a dimension. A dimension that its axes do not divide stays whole, and
without a mesh in context (`jax.set_mesh`), or with a single device, all functions here leave arrays
as they are.

Letters: B scenes, V views, h rows of a map, N maps.
"""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

Array = jax.Array

MESH_AXES = ("data", "fsdp", "view", "spatial")

RULES: dict[str, tuple[str, ...]] = {
    "scene": ("data", "fsdp"),
    "view": ("view",),
    "height": ("spatial",),
    "parameter": ("fsdp",),  # the one dimension of a parameter that is split
}
BATCH_AXES = RULES["scene"]

# Names of the dimensions of maps [B, V, h, w, C], images and latents among them. Width, channels
# and the splats of a scene are never split.
MAPS = ("scene", "view", "height")

# Arrays of a batch by name; all others have scenes alone.
BATCH_ARRAYS: dict[str, tuple[str, ...]] = {
    "images": MAPS,
    "world_from_cam": MAPS[:2],
    "intrinsics": MAPS[:2],
    "mean": MAPS,
    "log_var": MAPS,
    "known": MAPS,
    "known_mask": MAPS[:2],
}

# A 3x3 convolution fetches a row from each neighbour: fewer rows of one's own are not worth it.
_MIN_ROWS = 2


def spec(
    shape: Sequence[int], *names: str | None, mesh: Mesh | AbstractMesh | None = None
) -> PartitionSpec:
    """How an array is split whose first dimensions have these names; None: not split.

    Args:
      shape: of the array.
      *names: keys of `RULES`.
      mesh: None: that in context.
    """
    sizes = _axis_sizes(mesh)
    entries: list[tuple[str, ...] | None] = []
    for length, name in zip(shape, names, strict=False):
        axes = tuple(axis for axis in RULES.get(name, ()) if sizes.get(axis, 1) > 1)
        parts = math.prod(sizes[axis] for axis in axes)
        fits = length % parts == 0 and (name != "height" or length // parts >= _MIN_ROWS)
        entries.append(axes if axes and fits else None)
    return PartitionSpec(*entries)


def names_in_batch(array: str) -> tuple[str, ...]:
    """Names of the dimensions of an array of a batch, by its name."""
    return BATCH_ARRAYS.get(array, MAPS[:1])


def constrain(x: Array, *names: str | None) -> Array:
    """Tells the compiler to split an array by the names of its first dimensions, and only so."""
    if math.prod(_axis_sizes(None).values()) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(x.shape, *names))


def image_spec(lead: Sequence[int], height: int) -> PartitionSpec | None:
    """How images [B, V, H, ...] with B, V = `lead` are split; None: not at all.

    For the option `image_axes` of `rendering.api.render`.
    """
    entries = spec((*lead, height), *MAPS)
    return entries if any(entries) else None


def split_rows(
    image_axes: str | Sequence[str] | PartitionSpec, num_lead: int
) -> tuple[PartitionSpec, PartitionSpec]:
    """How the leading dimensions of images [..., H, ...] are split, and how with their rows.

    Args:
      image_axes: axes of the mesh in context over which the first dimension is split, or a
        `PartitionSpec` of the leading dimensions and the rows.
      num_lead: the number of leading dimensions.

    Raises:
      ValueError: if there is no mesh in context, or `image_axes` has too many entries.
    """
    if jax.sharding.get_abstract_mesh().empty:
        raise ValueError(f"{image_axes=} needs a mesh in context: with jax.set_mesh(mesh): ...")
    given = image_axes if isinstance(image_axes, PartitionSpec) else (image_axes,)
    if len(given) > num_lead + isinstance(image_axes, PartitionSpec):
        raise ValueError(
            f"{image_axes=} splits more dimensions than cameras with {num_lead} of them have"
        )
    padded = (*given, *[None] * (num_lead + 1 - len(given)))
    return PartitionSpec(*padded[:num_lead]), PartitionSpec(*padded)


def own_rows(rows: PartitionSpec, height: int) -> tuple[Array | int, int, tuple[str, ...]]:
    """First row, number of rows, and axes of the split, of a device inside `jax.shard_map`.

    Args:
      rows: as `split_rows` returns it second.
      height: H, rows of the whole image.

    Raises:
      ValueError: if the devices do not divide the rows.
    """
    axes = _axes(rows[-1])
    if not axes:
        return 0, height, axes
    if height % (parts := _parts(axes)):
        raise ValueError(f"{height=} is not divided by the {parts} devices along {axes}")
    count = height // parts
    return jax.lax.axis_index(axes) * count, count, axes


def own_place(split: PartitionSpec) -> Array | int:
    """Number of a device inside `jax.shard_map` among those that have different parts."""
    axes = [axis for entry in split for axis in _axes(entry)]
    return jax.lax.axis_index(axes) if axes else 0


def fold_views(maps: Array) -> Array:
    """Maps [B, V, h, ...] as [N, h, ...], N = B V, such that every device keeps its own.

    Scenes and views are in their order unless views are split. Then those of one device come one
    after another: in their order, N would be split into other pieces than B and V, and the devices
    would have to exchange maps at every fold.
    """
    scenes, views, *rest = maps.shape
    scene_axes, view_axes, row_axes = _entries(maps)
    if not view_axes:
        return maps.reshape(-1, *rest)
    s, v = _parts(scene_axes), _parts(view_axes)
    maps = maps.reshape(s, scenes // s, v, views // v, *rest).swapaxes(1, 2)
    both = PartitionSpec((*scene_axes, *view_axes), row_axes)
    return jax.lax.with_sharding_constraint(maps.reshape(-1, *rest), both)


def unfold_views(folded: Array, like: Array) -> Array:
    """The inverse of `fold_views`, for maps [N, ...] made of `fold_views(like)`."""
    scenes, views = like.shape[:2]
    scene_axes, view_axes, _ = _entries(like)
    s, v = _parts(scene_axes), _parts(view_axes)
    if view_axes:
        folded = folded.reshape(s, v, scenes // s, views // v, *folded.shape[1:]).swapaxes(1, 2)
    return constrain(folded.reshape(scenes, views, *folded.shape[-(like.ndim - 2) :]), *MAPS)


def _entries(maps: Array) -> list[tuple[str, ...]]:
    """Axes that split the scenes, the views and the rows."""
    return [_axes(entry) for entry in spec(maps.shape, *MAPS)]


def _axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """An entry of a `PartitionSpec` as a tuple."""
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _parts(axes: tuple[str, ...]) -> int:
    sizes = _axis_sizes(None)
    return math.prod(sizes.get(axis, 1) for axis in axes)


def _axis_sizes(mesh: Mesh | AbstractMesh | None) -> dict[str, int]:
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    return dict(mesh.shape)
