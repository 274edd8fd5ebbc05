"""The baseline without learning across scenes: splats optimised for the views of each scene alone.

Every `stride`-th pixel of the given (context) views carries one Gaussian on its ray. Depths start
from a plane sweep, colours from the pixels, and everything is then optimised so that the renderings
match the context views. There is no densification. Held-out views are never looked at.

`fit` does that for given views. `SplatFitTask` does it in the ordinary training loop, for the
scenes that an evaluation looks at, so that its metrics stand beside those of the learnt models.

Letters: S scenes, V context views, H W image, N = V * (H / stride) * (W / stride) Gaussians.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lgs_jax import settings as settings_lib
from lgs_jax.core import rays, rotations
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data import pipeline
from lgs_jax.losses import reconstruction
from lgs_jax.metrics.mean import Mean
from lgs_jax.rendering.api import Rendering, render
from lgs_jax.rendering.settings import RenderingSettings
from lgs_jax.tasks import drawing, plane_sweep, scene_visuals, view_metrics, views
from lgs_jax.tasks.views import Views

Array = jax.Array
Params = dict[str, Array]

# How far one unit of a parameter moves what it stands for: Adam moves all parameters alike.
_RATES = {"depth": 1.0, "offset": 0.5, "scale": 1.0, "turn": 0.5, "opacity": 2.0, "color": 0.5}


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """What is fitted and how it is kept plausible between the views.

    Attributes:
      stride: distance in pixels between the pixels that carry a Gaussian.
      start: depths at the start: `sweep` (plane sweep) or `random` (uniform in inverse depth).
      near: least depth, in units of the scene.
      far: greatest depth.
      num_planes: depth planes of the sweep.
      min_scale: least standard deviation of a Gaussian, in `stride` pixels at its depth.
      max_scale: greatest one.
      first_scale: the one at the start.
      first_opacity: opacity at the start.
      l1: weight of the mean absolute error of the rendered views.
      l2: weight of the mean squared error.
      smoothness: weight of the mean absolute step of log depth between neighbouring pixels, less
        where the image has an edge.
    """

    stride: int = 2
    start: Literal["sweep", "random"] = "sweep"
    near: float = 0.5
    far: float = 50.0
    num_planes: int = 96
    min_scale: float = 0.2
    max_scale: float = 3.0
    first_scale: float = 0.6
    first_opacity: float = 0.7
    l1: float = 1.0
    l2: float = 1.0
    smoothness: float = 0.05

    def __post_init__(self):
        require = functools.partial(settings_lib.require, self)
        require(("stride",), lambda x: x >= 1, "must be at least 1")
        require(("num_planes",), lambda x: x >= 3, "must be at least 3")
        require(("first_opacity",), lambda x: 0 < x < 1, "must lie between 0 and 1")
        if not 0 < self.near < self.far:
            raise ValueError(f"expected 0 < near < far, got near={self.near} far={self.far}")
        if not 0 < self.min_scale < self.first_scale < self.max_scale:
            raise ValueError(
                "expected 0 < min_scale < first_scale < max_scale, got "
                f"min_scale={self.min_scale} first_scale={self.first_scale} "
                f"max_scale={self.max_scale}"
            )


def start(images: Array, cameras: Cameras, key: Array, settings: FitSettings) -> Params:
    """Parameters of the splats of views [V, H, W, 3] before the first step."""
    rows, columns = _carrier_shape(images, settings)
    lead = (images.shape[0], rows, columns)
    low, high = 1 / settings.far, 1 / settings.near
    if settings.start == "sweep":
        planes = jnp.linspace(low, high, settings.num_planes)
        disparity = _carriers(plane_sweep.disparities(images, cameras, planes), settings)
    else:
        disparity = jax.random.uniform(key, lead, minval=low, maxval=high)
    share = jnp.clip((disparity - low) / (high - low), 1e-3, 1 - 1e-3)
    return {
        "depth": jnp.log(share) - jnp.log1p(-share),
        "offset": jnp.zeros((*lead, 3)),
        "scale": jnp.zeros((*lead, 3)),
        "turn": jnp.zeros((*lead, 3)),
        "opacity": jnp.zeros(lead),
        "color": jnp.zeros((*lead, 3)),
    }


def splats(params: Params, images: Array, cameras: Cameras, settings: FitSettings) -> Gaussians:
    """The Gaussians [N] that parameters stand for, given the views [V, H, W, 3] that carry them."""
    height, width = images.shape[1:3]
    origins, directions = (_carriers(x, settings) for x in rays.pixel_rays(cameras, height, width))
    moves = {name: _RATES[name] * params[name] for name in params}
    depth = 1 / disparity_of(params, settings)
    footprint = (settings.stride / cameras.intrinsics[:, 0])[:, None, None]
    turn = jnp.concatenate([jnp.ones_like(depth)[..., None], moves["turn"]], axis=-1)
    axes = rotations.quats_from_matrix(cameras.world_from_cam[:, :3, :3])[:, None, None]
    low, high = np.log(settings.min_scale), np.log(settings.max_scale)
    first = (np.log(settings.first_scale) - low) / (high - low)
    log_scale = low + (high - low) * jax.nn.sigmoid(_logit(first) + moves["scale"])
    scene = Gaussians(
        means=origins + depth[..., None] * (directions + footprint[..., None] * moves["offset"]),
        quats=rotations.multiply_quats(
            jnp.broadcast_to(axes, turn.shape), rotations.normalize_quats(turn)
        ),
        scales=(depth * footprint)[..., None] * jnp.exp(log_scale),
        opacities=jax.nn.sigmoid(_logit(settings.first_opacity) + moves["opacity"]),
        colors=_carriers(images, settings) + moves["color"],
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), scene)


def disparity_of(params: Params, settings: FitSettings) -> Array:
    """Inverse depths [...] of the splats along their rays."""
    low, high = 1 / settings.far, 1 / settings.near
    return low + (high - low) * jax.nn.sigmoid(_RATES["depth"] * params["depth"])


def objective(
    params: Params,
    images: Array,
    cameras: Cameras,
    settings: FitSettings,
    rendering: RenderingSettings = drawing.DEFAULTS,
) -> tuple[Array, dict[str, Array]]:
    """The sum over scenes of the fitting losses, and their terms; all arrays lead with S."""
    height, width = images.shape[-3:-1]
    scenes = jax.vmap(functools.partial(splats, settings=settings))(params, images, cameras)
    drawn = render(
        scenes, cameras, height=height, width=width, depth_mode=None, **rendering.options
    )
    terms = {
        "l1": reconstruction.l1(drawn.rgb, images),
        "l2": reconstruction.l2(drawn.rgb, images),
        "smoothness": _roughness(disparity_of(params, settings), _carriers(images, settings, 2)),
    }
    each = {name: jnp.mean(term, axis=-1) for name, term in terms.items()}
    total = sum(getattr(settings, name) * term for name, term in each.items())
    logged = {name: jnp.mean(term) for name, term in each.items()}
    return jnp.sum(total), logged | drawing.logged(scenes, drawn)


@functools.partial(jax.jit, static_argnames=("num_steps", "learning_rate", "settings"))
def fit(
    images: Array,
    cameras: Cameras,
    *,
    num_steps: int,
    key: Array,
    learning_rate: float = 0.02,
    settings: FitSettings = FitSettings(),
) -> Gaussians:
    """Splats of one scene or of many at once, optimised with Adam and a cosine decay.

    Args:
      images: context views [V, H, W, 3] or [S, V, H, W, 3] in [0, 1].
      cameras: their cameras [V] or [S, V].
      num_steps: steps of Adam.
      key: of the random start; unused with `settings.start="sweep"`.
      learning_rate: at the first step.
      settings: what is fitted.

    Returns:
      Gaussians [N] or [S, N].

    Raises:
      ValueError: if the images do not fit the cameras or the stride.
    """
    if images.ndim == 4:
        one = fit(
            images[None],
            cameras[None],
            num_steps=num_steps,
            key=key,
            learning_rate=learning_rate,
            settings=settings,
        )
        return one[0]
    if images.ndim != 5 or cameras.batch_shape != images.shape[:2]:
        raise ValueError(
            f"expected images [S, V, H, W, 3] and cameras [S, V], got {images.shape} and "
            f"{cameras.batch_shape}"
        )
    params = _start_all(images, cameras, key, settings)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps), b2=0.99)

    def step(_: int, carry: tuple[Params, Any]) -> tuple[Params, Any]:
        params, state = carry
        grads = jax.grad(objective, has_aux=True)(params, images, cameras, settings)[0]
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, num_steps, step, (params, optimizer.init(params)))
    return jax.vmap(functools.partial(splats, settings=settings))(params, images, cameras)


def _start_all(images: Array, cameras: Cameras, key: Array, settings: FitSettings) -> Params:
    """Parameters of scenes [S, V, ...], one scene after another to bound the sweep's memory."""
    keys = jax.random.split(key, images.shape[0])
    return jax.lax.map(lambda x: start(*x, settings), (images, cameras, keys))


def _carrier_shape(images: Array, settings: FitSettings) -> tuple[int, int]:
    height, width = images.shape[-3:-1]
    if height % settings.stride or width % settings.stride:
        raise ValueError(
            f"images of {height} x {width} are not a multiple of {settings.stride=}; crop them or "
            "choose another stride"
        )
    return height // settings.stride, width // settings.stride


def _carriers(values: Array, settings: FitSettings, axis: int = 1) -> Array:
    """Means of values [..., H, W, ...] over the stride x stride block of each Gaussian."""
    stride = settings.stride
    shape = values.shape
    blocks = (shape[axis] // stride, stride, shape[axis + 1] // stride, stride)
    values = values.reshape(*shape[:axis], *blocks, *shape[axis + 2 :])
    return values.mean(axis=(axis + 1, axis + 3))


def _roughness(disparity: Array, guide: Array) -> Array:
    """Mean absolute steps of log depth [S, V, h, w] inside what looks alike in guide [..., 3]."""
    total = 0.0
    for axis in (2, 3):
        steps = jnp.abs(jnp.diff(jnp.log(disparity), axis=axis))
        edges = jnp.mean(jnp.abs(jnp.diff(guide, axis=axis)), axis=-1)
        total += jnp.mean(steps * jnp.exp(-10.0 * edges), axis=(2, 3))
    return total


def _logit(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))


class SplatFitTask:
    """Fits the scenes of an evaluation (satisfies `tasks.task.Task`).

    The parameters are the splats of all S scenes. Nothing is learnt that another scene could use,
    so training batches are not looked at: every step fits the context views that the evaluation
    chooses, of all scenes at once.

    Args:
      fit: what is fitted.
      metrics: what an evaluation measures.
      context: context views [S, V] of the scenes.
      scene_index: which scenes of the evaluation's source these are [S].
      rendering: how splats are drawn.
    """

    def __init__(
        self,
        fit: FitSettings,
        metrics: view_metrics.MetricSettings,
        *,
        context: Views,
        scene_index: np.ndarray,
        rendering: RenderingSettings = drawing.DEFAULTS,
    ):
        self.options = fit
        self.metrics = view_metrics.ViewMetrics(metrics)
        self.context = context
        self.scene_index = scene_index
        self.rendering = rendering

    def init(self, key: Array) -> Params:
        """The splats before the first step, [S, V, h, w, ...] each."""
        return _start_all(self.context.images, self.context.cameras, key, self.options)

    def describe(self, params: Params) -> str:
        """How many scenes and splats are fitted."""
        scenes, *grid = params["depth"].shape
        return f"{scenes} scenes of {int(np.prod(grid)):,} splats, each fitted to its own views"

    def loss(
        self, params: Params, batch: Mapping[str, Any], key: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The sum of all scenes' objectives."""
        del batch, key
        given = (self.context.images, self.context.cameras)
        return objective(params, *given, self.options, self.rendering)

    def evaluate(self, params: Params, batch: Mapping[str, Any], key: Array) -> dict[str, Mean]:
        """Quality at context and held-out views; scenes that were not fitted do not count."""
        del key
        context, target = views.from_batch(batch["context"]), views.from_batch(batch["target"])
        scenes, fitted = self._scenes_of(params, batch)
        return self.metrics.of_scene(
            functools.partial(self._render, scenes),
            context,
            target,
            weights=jnp.asarray(batch["weight"]) * fitted,
        )

    def visualize(self, params: Params, batch: Mapping[str, Any], key: Array) -> dict[str, Any]:
        """Pictures, a turntable and the splats of the first scenes of a batch."""
        del key
        scenes, fitted = jax.jit(self._scenes_of)(params, batch)
        return scene_visuals.make(
            self._render,
            scenes,
            views.from_batch(batch["context"]),
            views.from_batch(batch["target"]),
            world_from_scene=jnp.asarray(batch["world_from_scene"]),
            weights=np.asarray(batch["weight"]) * np.asarray(fitted),
        )

    def _render(self, scenes: Gaussians, cameras: Cameras) -> Rendering:
        height, width = self.context.images.shape[2:4]
        return render(scenes, cameras, height=height, width=width, **self.rendering.options)

    def _scenes_of(self, params: Params, batch: Mapping[str, Any]) -> tuple[Gaussians, Array]:
        """The splats [B] of a batch's scenes, and 1 for each that was fitted, else 0 [B]."""
        same = jnp.asarray(batch["scene_index"])[:, None] == self.scene_index
        chosen = jax.tree.map(lambda x: x[jnp.argmax(same, axis=1)], (params, self.context))
        build = jax.vmap(functools.partial(splats, settings=self.options))
        return build(chosen[0], chosen[1].images, chosen[1].cameras), jnp.any(same, axis=1)


def from_config(config: Mapping[str, Any]) -> SplatFitTask:
    """The task of a whole configuration; fits `training.eval_scenes` scenes."""
    if "eval_scenes" not in config["training"]:
        raise settings_lib.SettingsError(
            "config.training.eval_scenes is not set; say how many scenes to fit"
        )
    data = settings_lib.build(pipeline.DataSettings, config["data"], "config.data")
    source = pipeline.make_source(data, "eval")
    count = min(config["training"]["eval_scenes"], len(source))
    batch = next(pipeline.eval_batches(source, data, batch_size=count, num_scenes=count))
    return SplatFitTask(
        settings_lib.build(FitSettings, config["model"], "config.model"),
        settings_lib.build(view_metrics.MetricSettings, config["metrics"], "config.metrics"),
        context=views.from_batch(batch["context"]),
        scene_index=batch["scene_index"],
        rendering=drawing.from_config(config),
    )
