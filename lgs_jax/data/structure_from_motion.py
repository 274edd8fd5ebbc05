"""Camera poses of photographs that have none, by COLMAP through `pycolmap` (extra `photos`).

SIFT points are found in every image, those of pairs of images are compared, and images are placed
one after another (Schönberger and Frahm, "Structure-from-motion revisited", CVPR 2016). The same
images give the same poses, whatever the number of cores.
"""

import contextlib
import importlib.util
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lgs_jax.data import images, progress
from lgs_jax.data.report import DataError

LEAST_IMAGES = 3
INSTALL = "pip install 'lgs_jax[photos]'"

_LONG_SIDE = 1600  # pixels; larger images are reduced to find points
_POINTS = 4096  # of an image at most
_ALL_PAIRS = 100  # images up to which each is compared with each
_NEIGHBOURS = 10  # that are compared beyond it, on either side, and those 16, 32, 64 ... away
_SPREAD = 50  # images, spread evenly, that are compared with each other in any case
_BLOCK = 100  # pairs between two looks at the clock
_SEED = 0


def available() -> bool:
    """Whether pycolmap is installed."""
    return importlib.util.find_spec("pycolmap") is not None


def compute_poses(
    files: Sequence[Path],
    output: Path,
    *,
    video: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Writes the poses of images as a COLMAP model `<output>/sparse/0`, which appears when whole.

    Images of the same size and EXIF focal length share a camera (SIMPLE_RADIAL). Of several models
    that do not hang together, the one with most images is kept. The world's frame and unit are
    arbitrary.

    Args:
      files: upright 8-bit images with names of their own, in the order in which they were taken.
      output: an existing folder.
      video: whether images that lie far apart in the order have little in common.
      say: told of the progress.

    Returns:
      For each image without a pose its name and what is known of the reason.

    Raises:
      DataError: if pycolmap is not installed, or no model can be made.
    """
    if not available():
        raise DataError(f"camera poses are computed by pycolmap, which is missing; {INSTALL}")
    if len(files) < LEAST_IMAGES:
        raise DataError(
            f"poses cannot be computed from {len(files)} images; give at least {LEAST_IMAGES}, "
            "better 20 to 100"
        )
    import pycolmap

    with _quiet(pycolmap), tempfile.TemporaryDirectory(dir=output) as scratch:
        folder, database = Path(scratch) / "images", Path(scratch) / "database.db"
        names = _link(files, folder)
        say(f"looking for points in {len(files)} images")
        _find_points(pycolmap, database, folder, files, list(names))
        _compare(pycolmap, database, list(names), video, say)
        partners = _partners(pycolmap, database, names)
        models = _place(pycolmap, database, folder, Path(scratch) / "models")
        if not models:
            raise DataError(_no_model(partners))
        model = max(models, key=lambda model: model.num_reg_images())
        for image in model.images.values():
            image.name = names[image.name]
        made = Path(scratch) / "0"
        made.mkdir()
        model.write_binary(made)
        (output / "sparse").mkdir(exist_ok=True)
        made.replace(output / "sparse" / "0")
    posed = {image.name for image in model.images.values() if image.has_pose}
    say(f"{len(posed)} of {len(files)} images have poses")
    return {name: _no_pose(found) for name, found in partners.items() if name not in posed}


@contextlib.contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """Without pycolmap's log, which reports every step as well as every failure of one."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def _link(files: Sequence[Path], folder: Path) -> dict[str, str]:
    """Links to the images by number, as COLMAP's lists of pairs take no spaces; their names."""
    folder.mkdir()
    names = {}
    for number, file in enumerate(files):
        link = folder / f"{number:06d}{file.suffix}"
        link.symlink_to(file.resolve())
        names[link.name] = file.name
    return names


def _find_points(
    pycolmap: Any, database: Path, folder: Path, files: Sequence[Path], names: list[str]
) -> None:
    """Adds images, cameras and points to a new database."""
    cameras: dict[tuple, list[str]] = {}
    stored = images.ReadOptions(exif="ignore")
    for name, file in zip(names, files, strict=True):
        kind = (images.stored_size(str(file), stored), images.exif_focal_length(str(file)))
        cameras.setdefault(kind, []).append(name)
    pycolmap.Database.open(database).close()
    for alike in cameras.values():  # first of all, so that numbers do not depend on threads
        pycolmap.import_images(
            database, folder, image_names=alike, camera_mode=pycolmap.CameraMode.SINGLE
        )
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = _LONG_SIDE
    options.sift.max_num_features = _POINTS
    pycolmap.extract_features(
        database,
        folder,
        image_names=names,
        extraction_options=options,
        device=pycolmap.Device.cpu,
    )


def _compare(
    pycolmap: Any, database: Path, names: list[str], video: bool, say: Callable[[str], None]
) -> None:
    """Adds what pairs of images have in common to the database."""
    pairs = image_pairs(len(names), video)
    counter = progress.Progress(len(pairs), "pairs of images compared", say, every_s=5.0)
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = database.with_name("pairs.txt")
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        lines = [f"{names[first]} {names[second]}\n" for first, second in block]
        pairing.match_list_path.write_text("".join(lines))
        pycolmap.match_image_pairs(
            database,
            pairing_options=pairing,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )
        counter.add(len(block))


def image_pairs(count: int, video: bool) -> list[tuple[int, int]]:
    """The pairs of `count` images in order that are compared; all, if that is not too many.

    Otherwise those of near images, and all of a few images that are spread evenly, as a path may
    come back to where it was.
    """
    every = math.ceil(count / _SPREAD) if video or count > _ALL_PAIRS else 1

    def chosen(first: int, second: int) -> bool:
        apart = second - first
        near = apart <= _NEIGHBOURS or apart.bit_count() == 1
        return near or first % every == second % every == 0

    return [(i, j) for i in range(count) for j in range(i + 1, count) if chosen(i, j)]


def _partners(pycolmap: Any, database: Path, names: dict[str, str]) -> dict[str, int]:
    """For each image with how many others it has points in common."""
    found = dict.fromkeys(names.values(), 0)
    with pycolmap.Database.open(database) as opened:
        by_number = {image.image_id: names[image.name] for image in opened.read_all_images()}
        pairs, counts = opened.read_two_view_geometry_num_inliers()
    for pair, count in zip(pairs, counts, strict=True):
        if count:
            for number in pycolmap.pair_id_to_image_pair(pair):
                found[by_number[number]] += 1
    return found


def _place(pycolmap: Any, database: Path, folder: Path, output: Path) -> list[Any]:
    """The models that the pairs allow."""
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = LEAST_IMAGES
    options.extract_colors = False
    options.random_seed = _SEED
    options.num_threads = 1  # the order of sums would differ from run to run
    pycolmap.set_random_seed(_SEED)
    return list(pycolmap.incremental_mapping(database, folder, output, options).values())


def _no_model(partners: dict[str, int]) -> str:
    matched = sum(map(bool, partners.values()))
    return (
        f"no poses can be computed: {matched} of {len(partners)} images have points in common with "
        "another, and no three fit together in space; take sharp photographs of things with "
        "texture, from places that differ, each sharing more than half of its view with the next"
    )


def _no_pose(found: int) -> str:
    return (
        f"no pose was found: it has points in common with {found} other images, too few or others "
        "than those that were placed; add photographs in between, or drop it"
    )
