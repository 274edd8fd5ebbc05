import jax
import jax.numpy as jnp

from lgs_jax.models import parameters

PARAMS = {
    "encoder": {"trunk": {"stem": {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)}}},
    "decoder": {"trunk": {"block": {"conv": {"kernel": jnp.zeros((5, 4))}}}},
    "scale": jnp.zeros(()),
}


def test_rows_add_up_to_the_total():
    lines = parameters.summary(PARAMS).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if not line.startswith("-")}
    assert rows["encoder/trunk/stem"] == ["2", "76", "78.4%"]
    assert rows["decoder/trunk/block"] == ["1", "20", "20.6%"]
    assert rows["scale"] == ["1", "1", "1.0%"]
    assert rows["total"] == ["4", "97", "100.0%"]
    assert parameters.count(PARAMS) == 97


def test_depth_sums_up_the_modules_below():
    lines = parameters.summary(PARAMS, depth=1).splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("-")] == [
        "module",
        "decoder",
        "encoder",
        "scale",
        "total",
    ]


def test_shapes_alone_are_enough():
    shapes = jax.eval_shape(lambda: PARAMS)
    assert parameters.summary(shapes) == parameters.summary(PARAMS)
