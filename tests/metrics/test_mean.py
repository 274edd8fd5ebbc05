"""Tests of the mergeable mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lgs_jax.metrics.mean import Mean

VALUES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).integers(0, 3, size=(7, 1)).astype(np.float32)


def test_plain_mean():
    np.testing.assert_allclose(Mean.of(VALUES).compute(), VALUES.astype(np.float64).mean(), 1e-5)


def test_merging_uneven_batches_equals_the_mean_of_all():
    merged = Mean.of(VALUES[:2]).merge(Mean.of(VALUES[2:6])).merge(Mean.of(VALUES[6:]))
    np.testing.assert_allclose(merged.compute(), VALUES.astype(np.float64).mean(), 1e-5)
    mean_of_means = np.mean([VALUES[:2].mean(), VALUES[2:6].mean(), VALUES[6:].mean()])
    assert abs(mean_of_means - VALUES.mean()) > 1e-3  # the mistake that merging avoids


def test_weights_broadcast_and_merge():
    expected = np.average(VALUES, weights=np.broadcast_to(WEIGHTS, VALUES.shape))
    merged = Mean.of(VALUES[:3], WEIGHTS[:3]).merge(Mean.of(VALUES[3:], WEIGHTS[3:]))
    np.testing.assert_allclose(merged.compute(), expected, 1e-5)


@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_padding_of_weight_zero_may_hold_anything(junk):
    values, weights = jnp.array([1.0, 3.0, junk]), jnp.array([1.0, 1.0, 0.0])
    assert float(Mean.of(values, weights).compute()) == 2.0


def test_a_value_with_weight_is_never_hidden():
    assert np.isnan(Mean.of(jnp.array([1.0, np.nan]), jnp.array([1.0, 1.0])).compute())


def test_no_values_give_nan():
    empty = Mean.of(jnp.array([1.0]), jnp.array([0.0]))
    assert np.isnan(empty.compute())
    assert float(empty.merge(Mean.of(jnp.array([4.0]))).compute()) == 4.0


def test_integers_are_averaged_in_floating_point():
    mean = Mean.of(jnp.array([1, 2], jnp.int32))
    assert mean.total.dtype == jnp.float32
    assert float(mean.compute()) == 1.5


def test_is_a_pytree_that_jit_returns_and_psum_merges():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(values, weights):
        return jax.lax.psum(Mean.of(values, weights), "data")

    spec = PartitionSpec("data")
    merged = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=PartitionSpec())
    )(VALUES, WEIGHTS)
    assert isinstance(merged, Mean)
    np.testing.assert_allclose(merged.compute(), Mean.of(VALUES, WEIGHTS).compute(), 1e-6)
    # vmapped "devices": psum over a mapped axis adds the leaves of seven of them
    stacked = jax.vmap(lambda v, w: jax.lax.psum(Mean.of(v, w), "i"), axis_name="i")(
        VALUES, WEIGHTS
    )
    np.testing.assert_allclose(
        stacked.total[0] / stacked.count[0], Mean.of(VALUES, WEIGHTS).compute(), 1e-5
    )


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"weights \(7,\) do not broadcast"):
        Mean.of(VALUES, WEIGHTS[:, 0])
