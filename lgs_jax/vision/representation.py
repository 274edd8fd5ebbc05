"""What a picture shows, in few numbers: for a denoiser to be told what to draw.

A model without classes has nothing to be guided by. Told a representation of each training picture
by a network that has learned to see, it has, and where scenes are sampled from nothing, the
representation is drawn first (Li, Katabi and He, "Return of Unconditional Generation: A
Self-supervised Representation Generation Method", 2023). Ours is principal components, whitened
together, of the brightness in 8 x 8 cells (the layout) and of the last map of a trunk of LPIPS in
2 x 3 cells (what is there). Colour takes no part, and is left to the denoiser. There is no second
model to draw them: a new one lies near that of a training picture (Casanova et al.,
"Instance-Conditioned GAN", 2021). As normal variables they look alike, but scenes get worse.

Letters: N pictures, H, W their size, R = `SIZE` numbers of a representation, F features of a part.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from lgs_jax import files
from lgs_jax.vision import array_files, lpips, trunks
from lgs_jax.vision import weights as lpips_weights

Array = jax.Array
Parts = dict[str, Array]

# Components of each part.
COMPONENTS = {"layout": 24, "content": 40}
SIZE = sum(COMPONENTS.values())

_LAYOUT_CELLS, _CONTENT_CELLS = (8, 8), (2, 3)
# The shortest side of what the trunk looks at: it was trained on 224, smaller is faster.
_LOOKED_AT = 112
# Brightness and contrast of the grey picture that it sees.
_BRIGHTNESS, _CONTRAST = 0.45, 0.2
_LEAST_CONTRAST = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Looker:
    """A trunk of LPIPS with its weights, to look at pictures with.

    Attributes:
      name: the trunk and the SHA-256 of its weights.
      params: the weights.
      net: the network.
    """

    name: str
    params: dict
    net: lpips.LpipsNet

    def __call__(self, images: Array) -> Parts:
        """The features {layout [N, F], content [N, F]} of pictures [N, H, W, 3] in [0, 1]."""
        return _look(self.net, self.params, images)


def open_looker(trunk: str, weights: str | os.PathLike | None = None) -> Looker:
    """A trunk of LPIPS, `alex` or `vgg`; `weights` as in `vision.weights.load`.

    Raises:
      lgs_jax.vision.weights.WeightsMissing: if there are none.
      ValueError: if the trunk is unknown, or the file is damaged or of another network.
    """
    path = lpips_weights.locate(trunk, weights)
    flat = lpips_weights.load(trunk, path)
    return Looker(
        name=f"{trunk} {array_files.checksum(path)}",
        params=jax.tree.map(jnp.asarray, flax.traverse_util.unflatten_dict(flat, sep=".")),
        net=lpips.LpipsNet(trunk),
    )


def _look(net: lpips.LpipsNet, params: dict, images: Array) -> Parts:
    count, height, width, _ = images.shape
    grey = jnp.mean(images, axis=-1, keepdims=True)
    axes = (1, 2, 3)
    spread = jnp.std(grey, axis=axes, keepdims=True) + _LEAST_CONTRAST
    grey = (grey - jnp.mean(grey, axis=axes, keepdims=True)) / spread
    scale = max(_LOOKED_AT, trunks.min_size(net.trunk)) / min(height, width)
    size = (round(scale * height), round(scale * width))
    seen = jax.image.resize(grey, (count, *size, 1), "linear")
    seen = jnp.repeat(_BRIGHTNESS + _CONTRAST * seen, 3, axis=-1)
    last = net.apply({"params": params}, seen, method=lpips.LpipsNet.features)[-1]
    content = _cells(last, _CONTENT_CELLS)
    # Square roots of unit vectors, so that single strong features do not decide.
    content = jnp.sqrt(jnp.maximum(content, 0.0))
    content /= jnp.maximum(jnp.linalg.norm(content, axis=-1, keepdims=True), 1e-6)
    return {"layout": _cells(grey, _LAYOUT_CELLS), "content": content}


def _cells(maps: Array, cells: tuple[int, int]) -> Array:
    """Maps [N, h, w, c] in a grid of cells, one row each."""
    small = jax.image.resize(maps, (len(maps), *cells, maps.shape[-1]), "linear", antialias=True)
    return small.reshape(len(maps), -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """Features to representations.

    Attributes:
      means: of the features by part [F].
      bases: by part [F, components]; they whiten each part.
      whitening: [R, R], of the parts' components one after the other.
    """

    means: dict[str, np.ndarray]
    bases: dict[str, np.ndarray]
    whitening: np.ndarray

    def __call__(self, parts: Parts) -> Array:
        """The representations [N, R] of what a `Looker` has found, float32."""
        components = [(parts[name] - self.means[name]) @ self.bases[name] for name in COMPONENTS]
        return jnp.concatenate(components, axis=-1) @ self.whitening

    def save(self, path: pathlib.Path) -> None:
        """Writes a .safetensors file."""
        arrays = {f"{name}/mean": self.means[name] for name in COMPONENTS}
        arrays |= {f"{name}/basis": self.bases[name] for name in COMPONENTS}
        arrays |= {"whitening": self.whitening}
        with files.replacing(path) as partial:
            partial.write_bytes(safetensors.numpy.save(arrays))


def load_projection(path: pathlib.Path) -> Projection:
    """What `Projection.save` has written.

    Raises:
      ValueError: if it is something else, or damaged.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        return Projection(
            means={name: arrays[f"{name}/mean"] for name in COMPONENTS},
            bases={name: arrays[f"{name}/basis"] for name in COMPONENTS},
            whitening=arrays["whitening"],
        )
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds no projection ({error}); delete its folder") from error


def fit(seen: Iterable[Parts]) -> Projection:
    """The projection that whitens what was seen, batch by batch, of training pictures.

    Raises:
      ValueError: if the pictures are too few, or too much alike, for so many components.
    """
    batches = [jax.device_get(parts) for parts in seen]
    means, bases, components = {}, {}, []
    for name, count in COMPONENTS.items():
        features = np.concatenate([parts[name] for parts in batches]).astype(np.float64)
        mean = features.mean(axis=0)
        left, values, axes = np.linalg.svd(features - mean, full_matrices=False)
        spread = values[:count] / np.sqrt(len(features))
        if len(spread) < count or spread[-1] <= 1e-6 * spread[0]:
            raise ValueError(
                f"{len(features)} training pictures do not differ in {count} ways ({name}); train "
                "on more of them, or without a representation"
            )
        axes = axes[:count]
        # Either sign would do; this one does not depend on the linear algebra library.
        signs = np.sign(axes[np.arange(count), np.argmax(np.abs(axes), axis=1)])
        means[name] = mean.astype(np.float32)
        # Contiguous, for safetensors writes the memory as it is.
        bases[name] = np.ascontiguousarray((signs[:, None] * axes).T / spread, np.float32)
        components.append(np.sqrt(len(features)) * signs * left[:, :count])
    both = np.concatenate(components, axis=1)
    values, axes = np.linalg.eigh(both.T @ both / len(both))
    if values[0] <= 1e-6:
        raise ValueError(
            f"{len(both)} training pictures do not differ in {SIZE} ways; train on more of them, "
            "or without a representation"
        )
    return Projection(means, bases, ((axes / np.sqrt(values)) @ axes.T).astype(np.float32))
