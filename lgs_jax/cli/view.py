"""python -m lgs_jax view SCENE ...: shows files of Gaussian splats.

With --html, writes one page that holds everything, draws with WebGL2 and opens without a network.
Without, serves a live viewer at this machine (pip install 'lgs_jax[viewer]') until Ctrl-C. Both
open at the first camera of --transforms, or of a transforms.json beside the first scene; where
there is none, cameras around the scene are made up.

  python -m lgs_jax view samples/sample_0.ply samples/sample_1.ply --html=samples.html --open
  python -m lgs_jax view scene.splat --up=+y
"""

import argparse
import pathlib
import webbrowser

from lgs_jax.cli import reporting
from lgs_jax.inference import splat_views
from lgs_jax.inference.export import formats
from lgs_jax.inference.viewer import camera_file, html, live


def main(arguments: list[str]) -> int:
    """Shows the scenes; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError, live.MissingViewerError) as error:
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Reads the scenes and cameras and shows them."""
    _check(options)
    paths = [pathlib.Path(scene).expanduser() for scene in options.scenes]
    scenes = dict(zip(_names(paths), map(formats.load, paths), strict=True))
    viewpoints = camera_file.find(options.transforms, paths[0].parent)
    up = splat_views.UPS[options.up] if options.up else None
    if options.html:
        target = pathlib.Path(options.html).expanduser()
        known = viewpoints and (viewpoints.cameras, viewpoints.sizes)
        html.write_html(
            target,
            scenes,
            *(known or ()),
            images=viewpoints and viewpoints.images,
            background=options.background or 0.0,
            up=up,
        )
        print(f"{target}: {len(scenes)} scenes, {target.stat().st_size / 1e6:.1f} MB")
        address = target.resolve().as_uri()
    else:
        host, port = options.host or "127.0.0.1", options.port or 8080
        server = live.serve(scenes, viewpoints, up=up, host=host, port=port)
        address = f"http://{host}:{server.get_port()}"
        print(f"{address} (Ctrl-C ends)", flush=True)
    if options.open:
        webbrowser.open(address)
    if not options.html:
        try:
            server.sleep_forever()
        except KeyboardInterrupt:
            server.stop()


def _check(options: argparse.Namespace) -> None:
    """Refuses options that would have no effect."""
    idle = ("host", "port") if options.html else ("background",)
    for name in idle:
        if getattr(options, name) is not None:
            kind = "the live viewer; leave out --html" if options.html else "a page; add --html"
            raise ValueError(f"--{name} is for {kind}")
    if options.html and pathlib.Path(options.html).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--html={options.html}: expected a name that ends in .html")


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
    add("scenes", metavar="SCENE", nargs="+", help=f"files; {', '.join(formats.FORMATS)}")
    add("--html", metavar="PAGE", help="write this page instead of serving a live viewer")
    add("--open", action="store_true", help="open the page or the live viewer in a browser")
    add("--transforms", help="cameras to look from: a transforms.json, or its folder")
    add("--up", choices=splat_views.UPS, help="default: up of the cameras, else -y; write --up=-y")
    add("--background", type=float, help="grey behind the splats, 0 to 1; default: 0; for --html")
    add("--host", help="address of the live viewer; default: 127.0.0.1, this machine alone")
    add("--port", type=int, help="of the live viewer, or the next free one; default: 8080")
    return parser
