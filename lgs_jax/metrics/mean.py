"""A weighted mean that can be split over batches and devices and put together again."""

import dataclasses

import jax
import jax.numpy as jnp

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """The sum and the total weight of some values; a pytree whose leaves simply add up.

    So `jax.lax.psum` of a `Mean` merges those of all devices, and merging uneven batches is exact.

    Attributes:
      total: weighted sum of the values [].
      count: sum of their weights [].
    """

    total: Array
    count: Array

    @classmethod
    def of(cls, values: Array, weights: Array | None = None) -> "Mean":
        """The mean of values [...] with weights >= 0 that broadcast to them (default: 1).

        A value of weight 0 is left out altogether, even if it is not finite: the padding of a batch
        may hold anything.

        Raises:
          ValueError: if the weights do not broadcast to the values' shape.
        """
        values = _as_float(values)
        if weights is None:
            return cls(jnp.sum(values), jnp.full((), values.size, values.dtype))
        weights = _as_float(weights)
        try:
            weights = jnp.broadcast_to(weights, values.shape)
        except ValueError:
            raise ValueError(
                f"weights {weights.shape} do not broadcast to the values {values.shape}; "
                "add trailing dimensions of size 1"
            ) from None
        kept = jnp.where(weights > 0, values, 0.0)
        return cls(jnp.sum(kept * weights), jnp.sum(weights))

    def merge(self, other: "Mean") -> "Mean":
        """The mean over the values of both."""
        return Mean(self.total + other.total, self.count + other.count)

    def compute(self) -> Array:
        """The mean []; NaN if there were no values."""
        return self.total / self.count


def _as_float(values: Array) -> Array:
    """The values in floating point, float32 or wider."""
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
