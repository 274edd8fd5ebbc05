"""python -m lgs_jax export IN OUT: converts files of Gaussian splats.

The suffixes say the formats: .ply (plain, or compressed as input), .splat, .spz, .glb, and, with
pip install 'lgs_jax[usd]', .usda, .usdc and .usdz. The scene opens the same way up in each, see
docs/export.md. With --verify, the file is read again and both scenes are rendered from around
them: every picture must agree to 45 dB, and all numbers exactly, to float32 rounding, where the
format stores floats. Exit status: 0, or 1 if something cannot be read, written or verified.

  python -m lgs_jax export samples/sample_0.ply room.spz --verify
  python -m lgs_jax export samples/sample_0.ply room.spz --version=4 --overwrite
"""

import argparse
import pathlib

from lgs_jax import files
from lgs_jax.cli import flag_parsing, reporting
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference import splat_views
from lgs_jax.inference.export import formats, verify
from lgs_jax.inference.viewer import camera_file


def main(arguments: list[str]) -> int:
    """Converts a file; returns the exit status."""
    options = _parser().parse_args(flag_parsing.with_axes(arguments))
    try:
        run(options)
    except (ValueError, OSError) as error:
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Reads, writes, and verifies if asked to."""
    source, target = pathlib.Path(options.input).expanduser(), files.local(options.output, "OUT")
    wanted = {} if options.version is None else {"version": options.version}
    formats.check_options(target, wanted)
    if target.exists() and not options.overwrite:
        raise FileExistsError(f"{target} exists; choose another name, or --overwrite")
    scene = formats.load(source)
    formats.save(target, scene, **wanted)
    size = target.stat().st_size
    print(
        f"{target}: {scene.num_gaussians:,} Gaussians, {size:,} bytes, "
        f"{size / scene.num_gaussians:.1f} each"
    )
    cameras = source.with_name(camera_file.NAME)
    if cameras.is_file() and not target.with_name(camera_file.NAME).exists():
        print(f"its cameras stay behind; view or render it with --transforms={cameras}")
    if options.verify:
        _verify(target, scene, options.up)


def _verify(target: pathlib.Path, scene: Gaussians, up: str) -> None:
    """Prints how well a file agrees with the scene.

    Raises:
      ValueError: if it is not well enough.
    """
    written = formats.load(target)
    if formats.of(target).is_lossless:
        if differing := verify.differing_fields(scene, written):
            raise ValueError(f"{target} does not hold what was written: {', '.join(differing)}")
        print("all numbers agree to float32 rounding")
    psnrs = verify.compare_pictures(scene, written, up=up)
    for view, psnr in enumerate(psnrs):
        print(f"view {view}: {psnr:.2f} dB")
    if min(psnrs) < verify.MIN_PSNR_DB:
        raise ValueError(
            f"{target}: the pictures agree to {min(psnrs):.2f} dB only, expected "
            f"{verify.MIN_PSNR_DB:.0f}; the format is too coarse for this scene, use .ply or .glb"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", metavar="IN", help=f"a file; {', '.join(formats.FORMATS)}")
    add("output", metavar="OUT", help="the file to write; the same suffixes")
    add("--version", type=int, help="of .spz: 3, which most viewers read, or 4; default: 3")
    add("--verify", action="store_true", help="read the file again and compare pictures")
    add("--up", default="-y", choices=splat_views.UPS, help="for --verify, as --up=-z; default: -y")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser
