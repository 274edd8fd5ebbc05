"""What `test_mesh_axes.py` runs in processes of their own: trainings on several meshes."""

import functools
import json
import pathlib
import sys

import flax.linen as nn
import jax
import numpy as np
import toy
from jax.experimental import multihost_utils
from test_mesh_axes import STEPS, TOY, VAE, batch

from lgs_jax import tasks
from lgs_jax.core import sharding
from lgs_jax.nn import blocks as nn_blocks
from lgs_jax.nn import multiview_unet
from lgs_jax.rendering import api
from lgs_jax.training import mesh as meshes
from lgs_jax.training import optimizer as optimizers
from lgs_jax.training import start, step
from lgs_jax.training import state as states
from lgs_jax.training.settings import TrainSettings

SETTINGS = TrainSettings(
    num_steps=STEPS,
    optimizer=optimizers.OptimizerSettings(learning_rate=3e-3, warmup_steps=4, eps=1e-4),
)
HERE = pathlib.Path(__file__).parent
SIZE, VIEWS, TARGETS, SCENES = 8, 2, 2, 2
CONFIG = {
    "task": "vae",
    "data": {"height": SIZE, "width": SIZE, "context_views": VIEWS},
    "model": {
        "compression": 1,
        "patch_size": 1,
        "widths": (4,),
        "blocks_per_level": 1,
        "middle_blocks": 0,
        "attention_levels": (),
        "num_heads": 1,
        "cross_view": "resnet",
        "scene_head": {"near": 1.0, "far": 8.0},
    },
    "loss": {"l1": 1.0, "l2": 0.5, "kl": 0.01, "pixel_color": 1.0},
}


def views(step):
    """A batch of random images and cameras side by side."""
    rng = np.random.default_rng(step)

    def group(count):
        poses = np.tile(np.eye(4, dtype=np.float32), (SCENES, count, 1, 1))
        poses[..., :3, 3] = rng.normal(0, 0.3, (SCENES, count, 3))
        intrinsics = np.tile(np.float32([SIZE, SIZE, SIZE / 2, SIZE / 2]), (SCENES, count, 1))
        images = rng.integers(0, 256, (SCENES, count, SIZE, SIZE, 3), dtype=np.uint8)
        return {"images": images, "world_from_cam": poses, "intrinsics": intrinsics}

    return {"context": group(VIEWS), "target": group(TARGETS)}


def share(batch):
    """This process's scenes."""
    count, index = jax.process_count(), jax.process_index()
    return jax.tree.map(lambda x: np.split(x, count)[index], batch)


def train(folder, name, task, sizes, batches):
    """Trains from the same parameters on a mesh; returns the compiler's count of operations."""
    chosen = meshes.MeshSettings(**{"data": 1} | sizes)
    count = chosen.data * chosen.fsdp * chosen.per_scene
    mesh = meshes.make(chosen, jax.devices()[:count])
    abstract = start.abstract_state(task, SETTINGS, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    split = [x for x in jax.tree.leaves(shardings.params) if not x.is_fully_replicated]
    assert bool(split) == (chosen.fsdp > 1), (name, split)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), abstract.params)
    with jax.set_mesh(mesh):
        state = jax.jit(
            lambda p: states.create(p, optimizers.make(SETTINGS.optimizer)),
            out_shardings=shardings,
        )(params)
        function = functools.partial(
            step.train_step,
            loss_fn=task.loss,
            optimizer_settings=SETTINGS.optimizer,
            num_steps=STEPS,
            ema_decay=0.9,
            accumulate_steps=1,
            seed=0,
        )
        jitted = jax.jit(function, out_shardings=(shardings, meshes.replicated(mesh)))
        placed = [meshes.put_local_batch(mesh, share(batch)) for batch in batches]
        compiled = jitted.lower(state, placed[0]).compile()
        losses = []
        for i in range(STEPS):
            state, metrics = compiled(state, placed[i % len(placed)])
            losses.append(float(metrics["loss"]))
        whole = jax.jit(lambda p: p, out_shardings=meshes.replicated(mesh))(state.params)
    leaves = jax.tree_util.tree_leaves_with_path(whole)
    arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
    if jax.process_index() == 0:
        np.savez(folder / f"{name}.npz", losses=losses, **arrays)
    return compiled.cost_analysis()["flops"]


def run(folder):
    """All meshes of eight devices of one process, or what two processes are for."""
    toy_task = toy.Toy(width=8192)
    toy_batches = [toy.make_batch(0, 8)]
    if jax.process_count() > 1:
        train(folder, "toy-processes", toy_task, {"data": 2, "fsdp": 4}, toy_batches)
        exchange()
        return
    for name, sizes in TOY.items():
        train(folder, f"toy-{name}", toy_task, sizes, toy_batches)
    task = tasks.make_task("vae", CONFIG)
    meshes._MIN_SPLIT_ELEMENTS = 2**6  # of this one most arrays, its convolutions among them
    flops = {}
    for name, sizes in VAE.items():
        flops[name] = train(folder, f"vae-{name}", task, sizes, [views(0)])
    (folder / "flops.json").write_text(json.dumps(flops))
    blocks()
    renderings()


def blocks():
    """Blocks with every kind of attention, halving and doubling, on all axes: values and slopes."""
    x = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 8)).astype(np.float32)
    mask = np.array([[True, True, False, True], [True] * 4])

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            make = functools.partial(
                multiview_unet.MultiViewBlock, 8, True, num_heads=2, dtype=np.float32
            )
            x = make(cross_view_mode="attention")(x, mask, None)
            x = nn_blocks.Downsample(8)(x)
            x = make(cross_view_mode="full")(x, mask, None)
            return nn_blocks.Upsample(8)(x)

    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(Net().init, jax.random.key(0), x, mask)
    params = jax.tree.map(lambda p: rng.normal(0, 0.3, p.shape).astype(np.float32), shapes)

    def slopes(params, x, mask):
        return jax.value_and_grad(lambda p, x: (Net().apply(p, x, mask) ** 2).mean(), (0, 1))(
            params, x
        )

    expected = jax.jit(slopes)(params, x, mask)
    mesh = meshes.make(meshes.MeshSettings(data=2, view=2, spatial=2))
    with jax.set_mesh(mesh):
        split = jax.NamedSharding(mesh, sharding.spec(x.shape, *sharding.MAPS))
        found = jax.jit(slopes)(params, jax.device_put(x, split), mask)
    assert found[1][1].sharding.shard_shape(x.shape) == (1, 2, 4, 8, 8), found[1][1].sharding
    compare(found, expected)


def renderings():
    """Splats by tiles and voxels by rays: each device draws its rows of its views."""
    sys.path[:0] = [str(HERE.parent / "rendering"), str(HERE.parent / "rendering" / "volume")]
    import field_scenes as scenes
    from test_api import _cameras, _scene

    lead = (2, 2)
    cameras = jax.tree.map(lambda a: np.broadcast_to(a, (*lead, *a.shape)), _cameras())
    splats, grid = _scene(lead=(2,)), scenes.make("voxels", lead=(2,))
    seen_from = scenes.cameras(lead=(2,), views=2)

    def draw(splats, image_axes, grid_axes):
        def loss(splats):
            options = {"height": 8, "width": 8, "implementation": "xla"}
            out = api.render(splats, cameras, image_axes=image_axes, **options)
            return (out.rgb**2).sum() + out.depth.sum(), out

        volume = api.render(grid, seen_from, height=4, width=5, image_axes=grid_axes)
        return jax.value_and_grad(loss, has_aux=True)(splats), volume

    expected = jax.jit(lambda s: draw(s, None, None))(splats)
    mesh = meshes.make(meshes.MeshSettings(data=2, view=2, spatial=2))
    with jax.set_mesh(mesh):
        axes = [sharding.image_spec(lead, size) for size in (8, 4)]
        found = jax.jit(lambda s: draw(s, *axes))(splats)
    # Rows have tiles of their own: pairs of a splat and a tile are counted, not compared.
    for (_, out), _ in (found[0], expected[0]):
        assert out.aux.pop("required").shape == lead
    assert found[0][0][1].rgb.sharding.shard_shape((2, 2, 8, 8, 3)) == (1, 1, 4, 8, 3)
    compare(found, expected)


def compare(found, expected):
    """Fails unless two trees agree up to the order of float32 sums."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
    )


def exchange():
    """Views of a scene on devices of two processes, each of which brings other scenes."""
    mesh = meshes.make(meshes.MeshSettings(data=1, view=4, spatial=2))
    whole = batch(scenes=4)
    whole["context"]["images"] = np.arange(4 * 4 * 8 * 6 * 3, dtype=np.int32).reshape(4, 4, 8, 6, 3)
    placed = meshes.put_local_batch(mesh, share(whole))["context"]["images"]
    assert placed.sharding.shard_shape(placed.shape) == (4, 1, 4, 6, 3), placed.sharding
    found = multihost_utils.process_allgather(placed, tiled=True)
    np.testing.assert_array_equal(found, whole["context"]["images"])
