"""python -m lgs_jax render SCENE OUT: a video or a picture of a file of Gaussian splats.

The suffix of OUT says what: .mp4, .gif or .webp, or .png for a single picture from the first camera
(or --camera). Cameras are those of --transforms, or of a transforms.json beside the scene; where
there is none, some around the scene are made up. Videos fly through the cameras, turn around what
they look at (--path=turntable) or sway a little around one of them (--path=wobble).

  python -m lgs_jax render samples/sample_0.ply room.mp4 --height=480
  python -m lgs_jax render samples/sample_0.ply room.webp --path=turntable --beside=depth
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lgs_jax import files
from lgs_jax.cli import reporting
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference import scene_video, video
from lgs_jax.inference.export import formats
from lgs_jax.inference.viewer import camera_file, framing
from lgs_jax.training import compilation_cache

FRAMES, FPS = 96, 24.0
_MAX_BYTES = 4 * 2**30  # of all pictures together
SUFFIXES = (".mp4", ".gif", ".webp", ".png")


def main(arguments: list[str]) -> int:
    """Draws the scene; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Reads, draws, writes."""
    source, target = pathlib.Path(options.scene).expanduser(), files.local(options.output, "OUT")
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{target}: expected a name that ends in {', '.join(SUFFIXES)}")
    _check(options, still := target.suffix.lower() == ".png")
    if target.exists() and not options.overwrite:
        raise FileExistsError(f"{target} exists; choose another name, or --overwrite")
    scene = formats.load(source)
    viewpoints, image_size = _viewpoints(options, source, scene)
    cameras = viewpoints.cameras
    number = options.camera or 0
    if not 0 <= number < len(cameras):
        raise ValueError(f"--camera={number}: the cameras are 0 to {len(cameras) - 1}")
    print(compilation_cache.enable())
    path = cameras[number : number + 1]
    if not still:
        name = options.path or scene_video.PATHS[0]
        path = scene_video.make_path(name, cameras, options.frames or FRAMES, number)
        if name == "turntable" and (note := scene_video.turntable_note(cameras)):
            print(note)
    height = options.height or image_size[0]
    path, size, factor = scene_video.enlarged(path, image_size, height)
    _check_memory(len(path), size, options.beside)
    frames = scene_video.draw(
        scene,
        path,
        size,
        background=options.background,
        blur=1.0 if options.sharp else max(factor, 1.0),
        beside=options.beside,
        cameras=cameras,
        images=viewpoints.images,
        say=print if len(path) > 1 else lambda _: None,
    )
    if still:
        with files.replacing(target) as partial:
            Image.fromarray(frames[0]).save(partial)
    else:
        fps, exact = options.fps or FPS, bool(options.lossless)
        video.save_video(target, frames, fps, min_side=1, lossless=exact)
    drawn = height, width = frames.shape[1:3]
    note = ""
    if target.suffix.lower() == ".mp4" and drawn != (even := video.even_size(drawn)):
        (height, width), note = even, ", for sides of .mp4 must be even"
    print(f"{target}: {len(frames)} x {width} x {height} pixels{note}")


def _check(options: argparse.Namespace, still: bool) -> None:
    """Refuses options that would have no effect, or none that one could mean."""
    idle = ("path", "frames", "fps") if still else ()
    if not still and options.path != "wobble":
        idle = ("camera",)
    for name in idle:
        if getattr(options, name) is not None:
            kind = "videos" if still else "a single picture, or for --path=wobble"
            raise ValueError(f"--{name} is for {kind}; leave it out")
    if options.lossless and pathlib.Path(options.output).suffix.lower() != ".webp":
        raise ValueError("--lossless is for .webp videos; leave it out")
    if not 0 <= options.background <= 1:
        raise ValueError(f"--background={options.background} must lie between 0 and 1")
    if options.fps is not None:
        video.check_fps(options.fps)


def _check_memory(num_frames: int, size: tuple[int, int], beside: Sequence[str]) -> None:
    """Refuses what memory would not hold, before anything is drawn."""
    height, width = size
    needed = 3 * num_frames * height * width * (1 + len(beside))
    if needed > _MAX_BYTES:
        raise ValueError(
            f"{num_frames} pictures of {width} x {height} pixels take {needed / 2**30:.1f} GiB, "
            f"more than {_MAX_BYTES / 2**30:g}; choose fewer --frames or a smaller --height"
        )


def _viewpoints(
    options: argparse.Namespace, source: pathlib.Path, scene: Gaussians
) -> tuple[camera_file.Viewpoints, tuple[int, int]]:
    """Cameras, photographs, and the one size H, W of the cameras' images."""
    viewpoints = camera_file.find(options.transforms, source.parent)
    if viewpoints is None:
        print(camera_file.MADE_UP)
        cameras, size = framing.around(scene)
        return camera_file.Viewpoints(cameras, np.array([size] * len(cameras)), ()), size
    sizes = sorted({tuple(size) for size in viewpoints.sizes.tolist()})
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for height, width in sizes)
        raise ValueError(f"the cameras are for images of several sizes ({listed}); give one size")
    return viewpoints, sizes[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax render",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scene", metavar="SCENE", help=f"a file; {', '.join(formats.FORMATS)}")
    add("output", metavar="OUT", help=f"the file to write; {', '.join(SUFFIXES)}")
    add("--path", choices=scene_video.PATHS, help="of a video; default: fly")
    add("--transforms", help="cameras: a transforms.json, or its folder")
    add("--camera", type=int, help="of a picture, or to sway around; default: 0")
    add("--frames", type=_positive, help=f"of a video; default: {FRAMES}")
    add("--fps", type=float, help=f"frames per second; default: {FPS:g}")
    add("--height", type=_positive, help="of the pictures; default: as the cameras say")
    add("--background", type=float, default=0.0, help="grey behind the splats, 0 to 1")
    add("--beside", nargs="+", choices=scene_video.BESIDE, default=(), help="shown at the sides")
    add("--sharp", action="store_true", help="blur by a pixel of the larger picture")
    add(
        "--lossless",
        action="store_true",
        default=None,
        help="every pixel of a .webp video as it was drawn, in several times the bytes",
    )
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value
