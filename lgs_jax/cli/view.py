"""python -m lgs_jax view SCENE ...: shows files of Gaussian splats.

With --html, writes one page that holds everything, draws with WebGL2 and opens without a network.
Without, serves a live viewer at this machine (pip install 'lgs_jax[viewer]') until Ctrl-C. Both
open at the first camera of --transforms, or of a transforms.json beside the first scene; where
there is none, cameras around the scene are made up. With --model, the live viewer draws further
scenes from a model: other seeds, steps, guidance, classes.

  python -m lgs_jax view samples/sample_0.ply samples/sample_1.ply --html=samples.html --open
  python -m lgs_jax view scene.splat --up=+y
  python -m lgs_jax view --model=objects-small
"""

import argparse
import pathlib

import jax
import numpy as np

from lgs_jax import files
from lgs_jax.cli import flag_parsing, reporting, sample, sample_views
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data import report
from lgs_jax.inference import pretrained, splat_views
from lgs_jax.inference.export import formats
from lgs_jax.inference.viewer import camera_file, html, live
from lgs_jax.inference.viewer.sampling_panel import Sampling, Wish
from lgs_jax.training import checkpoint, compilation_cache

_PORT, _MAX_PORT = 8080, 65535


def main(arguments: list[str]) -> int:
    """Shows the scenes; returns the exit status."""
    options = _parser().parse_args(flag_parsing.with_axes(arguments))
    try:
        run(options)
    except (
        ValueError,
        OSError,
        live.MissingViewerError,
        checkpoint.CheckpointError,
    ) as error:
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Reads the scenes and cameras and shows them."""
    _check(options)
    target = options.html and files.local(options.html, "--html")
    if target and target.exists() and not options.overwrite:
        raise FileExistsError(f"{target} exists; choose another name, or --overwrite")
    paths = [pathlib.Path(scene).expanduser() for scene in options.scenes]
    scenes = dict(zip(_names(paths), map(formats.load, paths), strict=True))
    viewpoints = camera_file.find(options.transforms, paths[0].parent if paths else None)
    sampling = None
    if options.model:
        sampling, viewpoints = _sampling(options, viewpoints)
        if not scenes:
            scenes = {str(sampling.first): sampling.draw(sampling.first)}
    if viewpoints is None:
        print(camera_file.MADE_UP)
    up = splat_views.UPS[options.up] if options.up else None
    if target:
        known = viewpoints and (viewpoints.cameras, viewpoints.sizes)
        html.write_html(
            target,
            scenes,
            *(known or ()),
            images=viewpoints and viewpoints.images,
            background=options.background or 0.0,
            up=up,
        )
        count = report.counted(len(scenes), "scene")
        print(f"{target}: {count}, {target.stat().st_size / 1e6:.1f} MB")
        address = target.resolve().as_uri()
    else:
        host, port = options.host or "127.0.0.1", options.port or _PORT
        server = live.serve(scenes, viewpoints, up=up, host=host, port=port, sampling=sampling)
        address = f"http://{host}:{server.get_port()}"
        print(f"{address} (Ctrl-C ends)", flush=True)
    if options.open:
        html.open_in_browser(address)
    if not target:
        try:
            server.sleep_forever()
        except KeyboardInterrupt:
            server.stop()


def _sampling(
    options: argparse.Namespace, viewpoints: camera_file.Viewpoints | None
) -> tuple[Sampling, camera_file.Viewpoints]:
    """What draws scenes from --model, seen from the given cameras if there are as many as it takes.

    Otherwise from the first path that comes with the model, or a made-up orbit.
    """
    print(compilation_cache.enable(), flush=True)
    model = sample.load_model(options)
    if viewpoints is not None and len(viewpoints.cameras) != model.num_views:
        raise ValueError(
            f"the model draws scenes seen from {model.num_views} cameras, but there are "
            f"{len(viewpoints.cameras)} (--transforms, or beside the scenes); view them apart"
        )
    if viewpoints is None:
        cameras = sample_views.default_path(model)
        sizes = np.tile(model.image_size, (model.num_views, 1))
        viewpoints = camera_file.Viewpoints(cameras, sizes, (None,) * model.num_views)
    cameras = viewpoints.cameras

    def draw(wish: Wish) -> Gaussians:
        return model.sample(
            jax.random.key(wish.seed),
            cameras,
            class_label=wish.class_name,
            steps=wish.steps,
            guidance_scale=wish.guidance,
        )[0]

    labels = sorted(set(model.path_classes)) if model.class_names else []
    names = [model.class_names[label] for label in labels]
    own = model.task.sampler
    good = [name for name in names if name in pretrained.recognised_classes(options.model)]
    first = Wish(0, own.steps, own.guidance, next(iter(good or names), None))
    return Sampling(draw, first, tuple(names)), viewpoints


def _check(options: argparse.Namespace) -> None:
    """Refuses options that would have no effect."""
    if not options.scenes and not options.model:
        raise ValueError("nothing to view; give files of splats, or --model")
    if options.autoencoder and not options.model:
        raise ValueError("--autoencoder has no effect without --model")
    if options.html and options.model:
        raise ValueError(
            "--model is for the live viewer; `python -m lgs_jax sample` draws scenes and writes a "
            "page of them"
        )
    idle = ("host", "port") if options.html else ("background", "overwrite")
    for name in idle:
        if getattr(options, name) is not None:
            kind = "the live viewer; leave out --html" if options.html else "a page; add --html"
            raise ValueError(f"--{name} is for {kind}")
    if options.html and pathlib.Path(options.html).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--html={options.html}: expected a name that ends in .html")
    if options.port is not None and not 1 <= options.port <= _MAX_PORT:
        raise ValueError(f"--port={options.port} must lie between 1 and {_MAX_PORT}")


def _names(paths: list[pathlib.Path]) -> list[str]:
    """Names of the scenes, with as much of the path as tells them apart."""
    for name in (lambda p: p.stem, lambda p: p.name, str):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"{twice} is given twice")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax view",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scenes", metavar="SCENE", nargs="*", help=f"files; {', '.join(formats.FORMATS)}")
    add("--html", metavar="PAGE", help="write this page instead of serving a live viewer")
    add("--overwrite", action="store_true", default=None, help="replace the page if it exists")
    add("--open", action="store_true", help="open the page or the live viewer in a browser")
    add("--model", help="draw further scenes from it: as for `python -m lgs_jax sample`")
    add("--autoencoder", help="where the model's autoencoder lies now; default: as the run says")
    add("--transforms", help="cameras to look from: a transforms.json, or its folder")
    add("--up", choices=splat_views.UPS, help="as --up=-z; default: up of the cameras, else -y")
    add("--background", type=float, help="grey behind the splats, 0 to 1; default: 0; for --html")
    add("--host", help="address of the live viewer; default: 127.0.0.1, this machine alone")
    add("--port", type=int, help=f"of the live viewer, or the next free one; default: {_PORT}")
    return parser
