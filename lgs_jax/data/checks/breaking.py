"""Good scenes broken in the usual ways, to see whether the checks find it out.

F frames. A scene to break holds its images in memory; breaks change copies.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from lgs_jax.data import poses
from lgs_jax.data.checks.conventions import FileConvention
from lgs_jax.data.checks.scene import Fault
from lgs_jax.data.example import Example

MIN_FRAMES = 4  # so that the one in the middle has neighbours on both sides
_GL = np.diag([1.0, -1.0, -1.0])
_TURN_DEG = 25.0
_EXPOSURE = 0.62
_BLUR = 0.02  # of the longer side
_MILLIMETRES = 1000.0


@dataclasses.dataclass(frozen=True)
class Break:
    """One way to break a scene.

    Attributes:
      title: what is done.
      kind: of the `Fault` that names it.
      apply: makes the broken scene; pure.
      says: what the fault must say, where its kind leaves open what to mend.
      single: whether one frame is at fault, that in the middle (F // 2), which must be named.
      by_splats: whether it can be told by fitting splats, without points in common.
    """

    title: str
    kind: str
    apply: Callable[[Example], Example]
    says: str = ""
    single: bool = False
    by_splats: bool = False


def breaks(convention: FileConvention) -> tuple[Break, ...]:
    """The 19 ways to break a scene whose format stores poses so."""
    opencv = np.array_equal(convention.axes, np.eye(3))
    wrong_axes = _GL if opencv else np.eye(3)
    axes_kind, axes_title = (
        ("opengl_axes", "OpenGL's axes") if opencv else ("opencv_axes", "OpenCV's axes")
    )

    def in_file(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Example], Example]:
        return lambda example: as_read(example, change(stored(example, convention)), convention)

    return (
        Break("inverse matrices", "inverted", in_file(poses.invert), by_splats=True),
        Break(axes_title, axes_kind, _turned(wrong_axes.T @ convention.axes), by_splats=True),
        Break("y flip", "mirrored", _mirrored(1), by_splats=True),
        Break("z flip", "mirrored", _mirrored(2), by_splats=True),
        Break("mirrored pictures", "mirrored", _pictures(lambda x: x[:, ::-1]), by_splats=True),
        Break("the other direction's translations", "mixed_translation", in_file(_other_shift)),
        Break(
            "negated translations", "negated_translation", in_file(_negated_shift), by_splats=True
        ),
        Break("quaternion order", "quaternion_order", in_file(_quaternions_read_wrong)),
        Break(
            "focal length doubled",
            "intrinsics",
            _intrinsics(2, 2, 1, 1),
            says="focal lengths 2 times too long",
        ),
        Break(
            "intrinsics of twice the size",
            "intrinsics",
            _intrinsics(2, 2, 2, 2),
            says="images 2 times as large",
        ),
        Break("poses a frame late", "frame_order", _late, says="poses 1 frame late"),
        Break("poses reversed", "frame_order", _reversed, says="in the reverse order"),
        Break("one pose turned", "jumping_camera", _one_turned, single=True),
        Break("one frozen pose", "frozen_poses", _one_frozen, single=True),
        Break("millimetres", "large_unit", _in_millimetres),
        Break("exposure step", "exposure", _darker_from_the_middle, single=True),
        Break("one blurred frame", "blur", _one_blurred, single=True),
        Break("one repeated frame", "repeated_images", _one_repeated, single=True),
        Break(
            "pictures upside down", "turned_images", _pictures(lambda picture: picture[::-1, ::-1])
        ),
    )


def mistake(
    example: Example, faults: Sequence[Fault], broken: Break | None, before: Sequence[Fault] = ()
) -> str:
    """What is wrong about the findings on a scene; empty if they are right.

    Right is, of a scene as it is, that nothing is called a fault (warnings and notes may be). Of a
    broken one: the break is named by its kind, with the words that it asks for, and of one frame
    with that frame; the finding is none that the scene has as it is; and nothing of another kind
    is called a fault.

    Args:
      example: the scene that was checked.
      faults: what was found in it.
      broken: how it was broken; None: it was not.
      before: what was found before it was broken.
    """
    others = sorted({f.kind for f in faults if f.level == "fault" and f.kind != _kind(broken)})
    found = f"found {', '.join(others)}" if others else ""
    if broken is None:
        return found
    known = {(fault.kind, fault.frames) for fault in before}
    named = [f for f in faults if f.kind == broken.kind and (f.kind, f.frames) not in known]
    if not named:
        return found or "not found"
    if not any(broken.says in fault.says for fault in named):
        return f"{broken.kind}, but {named[0].says}"
    middle = example.frame_names[len(example) // 2]
    if broken.single and not any(middle in fault.frames for fault in named):
        return f"{broken.kind} of other frames"
    return f"also {found}" if found else ""


def _kind(broken: Break | None) -> str:
    return "" if broken is None else broken.kind


def stored(example: Example, convention: FileConvention) -> np.ndarray:
    """The matrices [F, 4, 4] as a file of the convention holds them."""
    matrices = example.world_from_cam.copy()
    matrices[:, :3, :3] = matrices[:, :3, :3] @ convention.axes.T
    return poses.invert(matrices) if convention.cam_from_world else matrices


def as_read(example: Example, matrices: np.ndarray, convention: FileConvention) -> Example:
    """The scene with what a reader of the convention makes of matrices [F, 4, 4] in a file."""
    read = poses.invert(matrices) if convention.cam_from_world else matrices.copy()
    read[:, :3, :3] = read[:, :3, :3] @ convention.axes
    return dataclasses.replace(example, world_from_cam=read)


def _other_shift(matrices: np.ndarray) -> np.ndarray:
    return _with_shift(matrices, poses.invert(matrices)[:, :3, 3])


def _negated_shift(matrices: np.ndarray) -> np.ndarray:
    return _with_shift(matrices, -matrices[:, :3, 3])


def _with_shift(matrices: np.ndarray, shift: np.ndarray) -> np.ndarray:
    changed = matrices.copy()
    changed[:, :3, 3] = shift
    return changed


def _quaternions_read_wrong(matrices: np.ndarray) -> np.ndarray:
    """Quaternions in the order xyzw, read as wxyz."""
    from scipy.spatial.transform import Rotation

    changed = matrices.copy()
    quats = Rotation.from_matrix(matrices[:, :3, :3]).as_quat()
    changed[:, :3, :3] = np.stack([poses.rotation_from_quat(quat) for quat in quats])
    return changed


def _posed(change: Callable[[np.ndarray], None]) -> Callable[[Example], Example]:
    """Changes a copy of the poses [F, 4, 4] in place."""

    def apply(example: Example) -> Example:
        changed = example.world_from_cam.copy()
        change(changed)
        return dataclasses.replace(example, world_from_cam=changed)

    return apply


def _turned(axes: np.ndarray) -> Callable[[Example], Example]:
    def turn(matrices: np.ndarray) -> None:
        matrices[:, :3, :3] = matrices[:, :3, :3] @ axes

    return _posed(turn)


def _mirrored(axis: int) -> Callable[[Example], Example]:
    """An axis of world and camera flipped."""
    flip = np.eye(3)
    flip[axis, axis] = -1

    def mirror(matrices: np.ndarray) -> None:
        matrices[:, :3, :3] = flip @ matrices[:, :3, :3] @ flip
        matrices[:, :3, 3] = matrices[:, :3, 3] @ flip

    return _posed(mirror)


@_posed
def _late(matrices: np.ndarray) -> None:
    matrices[:] = np.roll(matrices, 1, axis=0)


@_posed
def _reversed(matrices: np.ndarray) -> None:
    matrices[:] = matrices[::-1].copy()


@_posed
def _one_turned(matrices: np.ndarray) -> None:
    from scipy.spatial.transform import Rotation

    middle = len(matrices) // 2
    turn = Rotation.from_euler("y", _TURN_DEG, degrees=True).as_matrix()
    matrices[middle, :3, :3] = matrices[middle, :3, :3] @ turn


@_posed
def _one_frozen(matrices: np.ndarray) -> None:
    matrices[len(matrices) // 2] = matrices[len(matrices) // 2 - 1]


@_posed
def _in_millimetres(matrices: np.ndarray) -> None:
    matrices[:, :3, 3] *= _MILLIMETRES


def _intrinsics(*factors: float) -> Callable[[Example], Example]:
    return lambda example: dataclasses.replace(
        example, intrinsics=example.intrinsics * np.array(factors)
    )


def _pictures(
    change: Callable[[np.ndarray], np.ndarray],
    which: Callable[[int], slice] = lambda _: slice(None),
) -> Callable[[Example], Example]:
    """Changes the pictures that `which` takes of F."""

    def apply(example: Example) -> Example:
        pictures = list(example.images)
        for i in range(len(pictures))[which(len(pictures))]:
            pictures[i] = np.ascontiguousarray(change(pictures[i]))
        return dataclasses.replace(example, images=pictures)

    return apply


def _blurred(picture: np.ndarray) -> np.ndarray:
    soft = ImageFilter.GaussianBlur(_BLUR * max(picture.shape[:2]))
    return np.asarray(Image.fromarray(picture).filter(soft))


_one_blurred = _pictures(_blurred, lambda count: slice(count // 2, count // 2 + 1))
_darker_from_the_middle = _pictures(
    lambda picture: np.rint(_EXPOSURE * picture).astype(np.uint8),
    lambda count: slice(count // 2, None),
)


def _one_repeated(example: Example) -> Example:
    middle, pictures, sizes = len(example) // 2, list(example.images), example.sizes.copy()
    pictures[middle], sizes[middle] = pictures[middle - 1], sizes[middle - 1]
    return dataclasses.replace(example, images=pictures, sizes=sizes)
