"""`benchmark rasterizer --compare=RIVAL`: two rasterizers, side by side on the same scenes.

The rival is gsplat's CUDA kernels, or another implementation of ours by name. Each side is a
process of its own with the scenes in its memory; they take turns, so that a machine that slows down
slows down both. A step is one image (or one gradient of all splat parameters) of the whole batch;
times are of several steps in a row, ended by one synchronisation.

Letters: B scenes, V views, N Gaussians.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

RIVAL = "gsplat"
MODES = ("forward", "gradient")

# Scenes B, views V, height, width, and how the splats are made: N at random, or one per pixel of so
# many maps of a size. `paper` is the work of a training step of the paper's model.
CASES: dict[str, tuple[int, int, int, int, tuple[int, ...]]] = {
    "paper": (8, 12, 96, 96, (6, 96)),
    "single-256": (1, 1, 256, 256, (6, 128)),
    "single-512": (1, 1, 512, 512, (6, 128)),
    "million-1080p": (1, 1, 1080, 1920, (1_000_000,)),
    "tiny": (2, 2, 16, 16, (2, 8)),
}
_BY_DEFAULT = ("paper", "single-256", "single-512", "million-1080p")
_PARAMETERS = ("means", "quats", "scales", "opacities", "colors")
_BATCH_STEPS = 5  # in a row, per time


class RivalError(RuntimeError):
    """A side cannot run on this machine; the message says what it lacks."""


def make_case(name: str) -> dict[str, np.ndarray]:
    """Arrays of a case: Gaussians [B, N], poses [B, V, 4, 4], intrinsics, cotangents."""
    from lgs_jax.cli import benchmark_rasterizer

    scenes, views, height, width, kind = CASES[name]
    made = []
    for seed in range(scenes):
        if len(kind) == 1:
            made.append(benchmark_rasterizer.random_scene(kind[0], seed))
        else:
            made.append(benchmark_rasterizer.pixel_aligned_scene(*kind, seed))
    case = {key: np.stack([np.asarray(getattr(s, key)) for s, _ in made]) for key in _PARAMETERS}
    # The views of a scene stand a little aside of each other.
    poses = np.repeat(np.stack([pose for _, pose in made])[:, None], views, axis=1)
    poses[:, :, 0, 3] += 0.04 * (np.arange(views) - (views - 1) / 2)
    focal = max(height, width)
    case["world_from_cam"] = poses.astype(np.float32)
    case["intrinsics"] = np.float32([focal, focal, width / 2, height / 2])
    shape = (scenes, views, height, width, 3)
    rng = np.random.default_rng(0)
    return case | {"cotangent": rng.standard_normal(shape, np.float32) / np.prod(shape)}


def compare(options: argparse.Namespace, say: Callable[[str], None] = print) -> list[dict]:
    """Runs the cases on both sides and prints a table, or with `options.json` JSON lines.

    Raises:
      RivalError: if a side cannot run.
    """
    results = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = (options.implementation or "best", options.compare)
        sides = [stack.enter_context(_side(name)) for name in names]
        devices = [side({"do": "describe"})["text"] for side in sides]
        if not options.json:
            for who, name, device in zip(("ours", "rival"), names, devices, strict=True):
                say(f"{who}: {name} on {device}")
            say("ms: minimum (median); ratio: the rival's median over ours, above 1 ours is faster")
        for case in options.cases or _BY_DEFAULT:
            path = folder / f"{case}.npz"
            np.savez(path, **make_case(case))
            result = _run_case(case, path, sides, options.repeats)
            results.append(result)
            say(json.dumps(result) if options.json else _row(result))
            path.unlink()
    return results


def _run_case(case: str, path: pathlib.Path, sides: list[Callable], repeats: int) -> dict[str, Any]:
    """Times of both sides, in turns, and how far their images and gradients lie apart."""
    result: dict[str, Any] = {"case": case}
    for number, side in enumerate(sides):
        side({"do": "load", "path": str(path), "out": str(path.with_suffix(f".{number}.npz"))})
    for mode in MODES:
        times: list[list[float]] = [[], []]
        for _ in range(repeats):
            for number, side in enumerate(sides):
                times[number].append(side({"do": "time", "mode": mode})["ms"])
        for name, own in zip(("ours", "rival"), times, strict=True):
            result[f"{mode}_{name}_ms"] = min(own)
            result[f"{mode}_{name}_median_ms"] = float(np.median(own))
        result[f"{mode}_ratio"] = float(np.median(times[1]) / np.median(times[0]))
    for name, side in zip(("ours", "rival"), sides, strict=True):
        result[f"{name}_peak_mb"] = side({"do": "memory"})["mb"]
    ours, theirs = (np.load(path.with_suffix(f".{number}.npz")) for number in (0, 1))
    result["image_difference"] = float(np.abs(ours["image"] - theirs["image"]).max())
    result["gradient_difference"] = max(
        float(np.linalg.norm(ours[key] - theirs[key]) / max(np.linalg.norm(theirs[key]), 1e-30))
        for key in _PARAMETERS
    )
    return result


def _row(r: dict[str, Any]) -> str:
    parts = [f"{r['case']:14}"]
    for mode in MODES:
        ours, rival = (
            f"{r[f'{mode}_{who}_ms']:.2f} ({r[f'{mode}_{who}_median_ms']:.2f})"
            for who in ("ours", "rival")
        )
        parts.append(f"{mode} {ours} / {rival} = {r[f'{mode}_ratio']:.2f}x")
    memory = " / ".join(
        "?" if r[f"{who}_peak_mb"] is None else f"{r[f'{who}_peak_mb']:.0f}"
        for who in ("ours", "rival")
    )
    parts.append(f"peak MB {memory}")
    parts.append(f"differ by {r['image_difference']:.1e}, {r['gradient_difference']:.1e}")
    return " | ".join(parts)


@contextlib.contextmanager
def _side(name: str) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A process that answers requests; see `serve`."""
    # Both share one device, so none may take all of its memory beforehand.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "lgs_jax.cli.benchmark_rivals", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RivalError(f"the process of {name} ended; its error stands above")
        found = json.loads(answer)
        if "error" in found:
            raise RivalError(f"{name}: {found['error']}")
        return found

    try:
        yield ask
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()


def serve(name: str) -> None:
    """Answers requests from standard input, one JSON object a line, as the side `name`.

    A side that cannot run says why to every request.
    """
    side, fault = None, None
    try:
        side = Gsplat() if name == RIVAL else Ours(None if name == "best" else name)
    except (ImportError, RivalError) as error:
        fault = {"error": str(error)}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = fault or _answer(side, request)
        except (RivalError, NotImplementedError, ValueError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def _answer(side: "Ours | Gsplat", request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "describe":
        return {"text": side.describe()}
    if request["do"] == "memory":
        return {"mb": side.peak_mb()}
    if request["do"] == "load":
        side.load(dict(np.load(request["path"])))
        image = side.run("forward")
        gradients = side.run("gradient")  # both compile, or warm up
        np.savez(
            request["out"],
            image=side.host(image),
            **dict(zip(_PARAMETERS, map(side.host, gradients), strict=True)),
        )
        return {}
    begin = time.perf_counter()
    for _ in range(_BATCH_STEPS):
        result = side.run(request["mode"])
    side.wait(result)
    return {"ms": 1e3 * (time.perf_counter() - begin) / _BATCH_STEPS}


class Ours:
    """`lgs_jax.render` by one implementation."""

    def __init__(self, implementation: str | None):
        import jax

        from lgs_jax.rendering.splat import dispatch

        if implementation is not None and implementation not in dispatch.IMPLEMENTATIONS:
            known = ", ".join((RIVAL, *dispatch.IMPLEMENTATIONS))
            raise RivalError(f"there is no implementation {implementation!r}; known: {known}")
        self._jax, self._implementation = jax, implementation

    def describe(self) -> str:
        """The device and the version."""
        return f"{self._jax.devices()[0].device_kind}, jax {self._jax.__version__}"

    def load(self, case: dict[str, np.ndarray]) -> None:
        """Puts a case on the device and compiles for it."""
        import jax
        import jax.numpy as jnp

        from lgs_jax.core.cameras import Cameras
        from lgs_jax.core.gaussians import Gaussians
        from lgs_jax.rendering.api import render

        height, width = case["cotangent"].shape[2:4]
        poses = jnp.asarray(case["world_from_cam"])
        intrinsics = jnp.broadcast_to(jnp.asarray(case["intrinsics"]), (*poses.shape[:2], 4))
        cameras, cotangent = Cameras(poses, intrinsics), jnp.asarray(case["cotangent"])

        def image(scene, cameras):
            return render(
                scene,
                cameras,
                height=height,
                width=width,
                depth_mode=None,
                implementation=self._implementation,
            ).rgb

        def loss(scene, cameras, cotangent):
            return jnp.sum(image(scene, cameras) * cotangent)

        scene = Gaussians(*(jnp.asarray(case[name]) for name in _PARAMETERS))
        self._arguments = {
            "forward": (jax.jit(image), (scene, cameras)),
            "gradient": (jax.jit(jax.grad(loss)), (scene, cameras, cotangent)),
        }

    def run(self, mode: str) -> Any:
        """Starts one step."""
        function, arguments = self._arguments[mode]
        result = function(*arguments)
        return result if mode == "forward" else [getattr(result, name) for name in _PARAMETERS]

    def wait(self, result: Any) -> None:
        """Until it is done."""
        self._jax.block_until_ready(result)

    def host(self, array: Any) -> np.ndarray:
        """The array in NumPy."""
        return np.asarray(array)

    def peak_mb(self) -> float | None:
        """Most memory of the device in use so far; None where the device does not tell."""
        stats = self._jax.devices()[0].memory_stats() or {}
        return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None


class Gsplat:
    """gsplat's `rasterization` on the first CUDA device.

    Of 1.5.3 or later, which takes batches of scenes and views in one call.
    """

    def __init__(self):
        try:
            import gsplat
            import torch
        except ImportError as error:
            raise RivalError(
                f"it needs torch with CUDA and gsplat ({error}); pip install torch gsplat"
            ) from error
        if not torch.cuda.is_available():
            raise RivalError("torch finds no CUDA device, and gsplat's kernels run on no other")
        self._torch, self._gsplat = torch, gsplat

    def describe(self) -> str:
        """The device and the versions."""
        torch = self._torch
        versions = f"gsplat {self._gsplat.__version__}, torch {torch.__version__}"
        return f"{torch.cuda.get_device_name(0)}, {versions}"

    def load(self, case: dict[str, np.ndarray]) -> None:
        """Puts a case on the device."""
        put = lambda array: self._torch.as_tensor(array, device="cuda")  # noqa: E731
        self._height, self._width = case["cotangent"].shape[2:4]
        self._parameters = [put(case[name]).requires_grad_() for name in _PARAMETERS]
        self._cotangent = put(case["cotangent"])
        poses = case["world_from_cam"]
        self._viewmats = put(np.linalg.inv(poses.astype(np.float64)).astype(np.float32))
        fx, fy, cx, cy = case["intrinsics"]
        k = np.float32([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        self._intrinsics = put(np.broadcast_to(k, (*poses.shape[:2], 3, 3)).copy())
        self._torch.cuda.reset_peak_memory_stats()

    def run(self, mode: str) -> Any:
        """Starts one step."""
        with self._torch.set_grad_enabled(mode == "gradient"):
            image, _, _ = self._gsplat.rasterization(
                *self._parameters,
                self._viewmats,
                self._intrinsics,
                self._width,
                self._height,
                packed=False,
            )
        if mode == "forward":
            return image
        return self._torch.autograd.grad(image, self._parameters, self._cotangent)

    def wait(self, _: Any) -> None:
        """Until all is done."""
        self._torch.cuda.synchronize()

    def host(self, array: Any) -> np.ndarray:
        """The tensor in NumPy."""
        return array.detach().cpu().numpy()

    def peak_mb(self) -> float | None:
        """Most memory of the device in use since the case was loaded."""
        return self._torch.cuda.max_memory_allocated() / 2**20


if __name__ == "__main__":
    serve(sys.argv[1])
