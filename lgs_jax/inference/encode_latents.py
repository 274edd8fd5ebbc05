"""Encodes the training scenes of an autoencoder to disk, for stage 2 (`data.latents`).

Letters: B records encoded at once, K draws of a scene.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lgs_jax import settings
from lgs_jax.data import latents, mixture, pipeline, progress
from lgs_jax.data.example import Source
from lgs_jax.data.report import DataError
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import load
from lgs_jax.models import conditioning
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.tasks import encoding, views
from lgs_jax.vision import representation

BATCH_SIZE = 16
SHARD_MB = 64
# What whitens representations, in the folder of latents; and training pictures it is fitted to.
PROJECTION = "representation.safetensors"
LOOKED_AT = 4096


def describe(
    saved: load.SavedAutoencoder,
    source: Source,
    data: DataSettings,
    *,
    max_known: int = 0,
    looker: representation.Looker | None = None,
    shard_mb: int = SHARD_MB,
) -> latents.Manifest:
    """The manifest of these scenes' latents, no shard finished; nothing is encoded.

    Args:
      saved: the autoencoder.
      source: the training scenes.
      data: how they are read; `view_draws` says how many draws of each.
      max_known: most known views, as in `DiffusionSettings`; 0: all.
      looker: what gives the pictures' representations; None: they have none.
      shard_mb: size that a shard stays below, unless one scene is larger.

    Raises:
      SettingsError: if the data are not those of the autoencoder.
      ValueError: if `view_draws` or `max_known` makes no sense.
    """
    saved.plain.check_data(data)
    if data.view_draws is None:
        raise ValueError(
            "config.data.view_draws is None, a new choice of views at every visit, which cannot be "
            "encoded beforehand; give the number of draws of each scene"
        )
    if not 0 <= max_known <= data.context_views or shard_mb < 1:
        raise ValueError(
            f"{max_known=} must be 0 to the {data.context_views} context views, and {shard_mb=} at "
            "least 1"
        )
    shape = (data.context_views, *saved.plain.latent_shape)
    size = 0 if looker is None else representation.SIZE
    scene_bytes = latents.record_type(shape, size).itemsize * data.view_draws
    return latents.Manifest(
        autoencoder=str(saved.folder.absolute()),
        step=saved.step,
        parameters=parameter_hash(saved.plain.params),
        data=latents.data_identity(data),
        num_scenes=len(source),
        num_frames=source.report.frames_kept,
        max_known=max_known or data.context_views,
        latent_shape=shape,
        representation="" if looker is None else looker.name,
        representation_size=size,
        scenes_per_shard=max(1, shard_mb * 2**20 // scene_bytes),
    )


def parameter_hash(params: Any) -> str:
    """SHA-256 of names, types, shapes and values of a tree of parameters."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        value = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        digest.update(value)
    return digest.hexdigest()


def of_run(
    config: Mapping[str, Any], source: Source, data: DataSettings
) -> latents.EncodedLatents | None:
    """The latents of `config.latents`, if they are those that the run would encode; None without.

    Raises:
      DataError: if the folder cannot be used.
      SettingsError: if it holds others, naming everything that differs.
    """
    folder = config.get("latents")
    size = load.representation_size(config)
    if not folder or config["task"] != "diffusion":  # the other tasks refuse the key
        return None
    if not isinstance(folder, str):
        raise settings.SettingsError(f"config.latents={folder!r} must be a folder, or empty")
    encoded = latents.EncodedLatents(folder)
    if data.view_draws is None:
        raise settings.SettingsError(
            f"config.data.view_draws=None, but config.latents={folder!r} holds "
            f"{encoded.manifest.draws} draws of each scene; give --config.data.view_draws="
            f"{encoded.manifest.draws}"
        )
    saved = load.open_autoencoder(config["autoencoder"])
    max_known = config.get("diffusion", {}).get("max_known", 0)
    there = encoded.manifest
    wanted = describe(saved, source, data, max_known=max_known)
    encoded.check(
        dataclasses.replace(
            wanted,
            representation=there.representation,
            representation_size=size or there.representation_size,
        )
    )
    return encoded


def representations(encoded: latents.EncodedLatents | None, source: Source) -> dict[str, Any]:
    """What to record with a run's configuration, for `DiffusionTask` to sample from nothing."""
    if encoded is None or not encoded.manifest.representation_size:
        return {}
    bank = Pictures().drawn(encoded, source).astype(np.float64)
    return {"representations": np.round(bank, 3).tolist()}


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Training pictures near whose representations scenes from nothing are drawn.

    Attributes:
      count: how many, the first that training sees with seed 0.
      mixed: whether those of `config.data.mix` are among them, in their share of the training.
      folder: where the latents lie now that the representations come with; "": where the run
        found them.
    """

    count: int = 512
    mixed: bool = True
    folder: str = ""

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(
                f"{self.count} pictures are not enough to draw near to; give 1 or more"
            )

    def representations(self, config: Mapping[str, Any], data: DataSettings) -> np.ndarray:
        """Those of a run's training pictures, [count, R].

        Raises:
          lgs_jax.settings.SettingsError: if the run's denoiser is told none, there is no mix to
            leave out, or see `of_run`.
          lgs_jax.data.report.DataError: see `of_run`.
        """
        if not config["model"].get("representation_size"):
            raise settings.SettingsError(
                "this run is told no representations (config.model.representation_size=0), so "
                "there are no pictures to choose for scenes from nothing; leave that out"
            )
        if not self.mixed and not data.mix:
            raise settings.SettingsError(
                "the run's data have no mix (config.data.mix) to leave out; leave that out"
            )
        source = pipeline.make_source(data, "train")
        placed = {**config, "latents": self.folder or config["latents"]}
        return self.drawn(of_run(placed, source, data), source)

    def drawn(self, encoded: latents.EncodedLatents, source: Source) -> np.ndarray:
        """Those of the latents of a source, [count, R]."""
        order = mixture.Order(source, seed=0)
        visits = (order(number) for number in itertools.count())
        if not self.mixed and isinstance(source, mixture.Mixture):
            visits = (visit for visit in visits if source.part_of(visit[0]) == 0)
        return np.stack(
            [
                encoded.entry(scene, epoch % encoded.manifest.draws)["representation"]
                for scene, epoch in itertools.islice(visits, self.count)
            ]
        )


def write(
    folder: pathlib.Path,
    saved: load.SavedAutoencoder,
    source: Source,
    data: DataSettings,
    manifest: latents.Manifest,
    *,
    looker: representation.Looker | None = None,
    batch_size: int = BATCH_SIZE,
    say: Callable[[str], None] = print,
) -> latents.Manifest:
    """Encodes everything that the folder lacks; whole shards of an earlier attempt are kept.

    Args:
      folder: where to write.
      saved: the autoencoder.
      source: the training scenes.
      data: how they are read.
      manifest: of all this, from `describe`.
      looker: as for `describe`.
      batch_size: B.
      say: told of the progress.

    Returns:
      the manifest of the finished folder.

    Raises:
      DataError: if the folder holds other latents or files, a scene cannot be read, or a latent is
        not finite.
    """
    done, manifest = _finished(folder, manifest, say)
    look = None
    if looker is not None and len(done) < manifest.num_shards:
        look = _representations(folder, looker, source, data, say)
    draws = [len(manifest.scenes_of(i)) * manifest.draws for i in range(manifest.num_shards)]
    counter = progress.Progress(sum(draws), "draws", say, done=sum(draws[i] for i in done))
    for number in range(manifest.num_shards):
        if number not in done:
            records = _encode_shard(saved.plain, source, data, manifest, number, batch_size, look)
            done[number] = latents.write_shard(folder, f"shard_{number:05d}.npy", records)
            counter.add(draws[number])
        if number >= len(manifest.shards):
            manifest = dataclasses.replace(manifest, shards=(*manifest.shards, done[number]))
            manifest.write(folder)
        elif manifest.shards[number] != done[number]:
            shards = list(manifest.shards)
            shards[number] = done[number]
            manifest = dataclasses.replace(manifest, shards=tuple(shards))
            manifest.write(folder)
    return manifest


def _finished(
    folder: pathlib.Path, manifest: latents.Manifest, say: Callable[[str], None]
) -> tuple[dict[int, latents.Shard], latents.Manifest]:
    """Whole shards of an earlier attempt by their number, and the manifest to go on with."""
    found = latents.read_manifest(folder) if folder.exists() else None
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        if strangers := sorted(path.name for path in folder.iterdir()):
            raise DataError(
                f"{folder} is not empty (it holds {strangers[0]!r}) and has no manifest; choose "
                "another folder"
            )
        manifest.write(folder)
        return {}, manifest
    if different := found.differences(manifest):
        raise DataError(
            f"{folder} holds other latents:\n  "
            + "\n  ".join(different)
            + "\nChoose another folder, or delete this one"
        )
    whole = {i: s for i, s in enumerate(found.shards) if latents.is_intact(folder, s)}
    say(f"{folder}: {len(whole)} of {found.num_shards} shards are there and whole")
    return whole, found


def _encode_shard(
    plain: FrozenAutoencoder,
    source: Source,
    data: DataSettings,
    manifest: latents.Manifest,
    number: int,
    batch_size: int,
    look: Callable[[Any], jax.Array] | None,
) -> np.ndarray:
    """The records of one shard."""
    scenes = manifest.scenes_of(number)
    record = latents.record_type(manifest.latent_shape, manifest.representation_size)
    records = np.zeros(len(scenes) * manifest.draws, record)
    encode = functools.partial(_encode, max_known=manifest.max_known)
    start = 0
    for entries in _batches(source, data, scenes, batch_size):
        padded = entries + entries[-1:] * (batch_size - len(entries))  # one shape, one compilation
        batch = pipeline.stack(padded)
        encoded = encode(plain, _needed(batch))
        if look is not None:
            encoded["representation"] = look(batch["context"])
        encoded = jax.device_get(encoded)
        rows = records[start : start + len(entries)]
        start += len(entries)
        for name, values in encoded.items():
            finite = np.isfinite(values[: len(rows)]).reshape(len(rows), -1).all(axis=1)
            if not finite.all():
                scene = entries[int(np.argmin(finite))]["scene_index"]
                raise DataError(
                    f"scene {source[int(scene)].key}: its latents ({name}) are not finite; look at "
                    "its images, or at the autoencoder's training"
                )
            rows[name] = values[: len(rows)]
        for name in ("world_from_cam", "intrinsics"):
            rows[name] = batch["context"][name][: len(rows)]
        for name in ("class_label", "scene_index", "draw"):
            rows[name] = batch[name][: len(rows)]
    return records


def _representations(
    folder: pathlib.Path,
    looker: representation.Looker,
    source: Source,
    data: DataSettings,
    say: Callable[[str], None],
) -> Callable[[Mapping[str, Any]], jax.Array]:
    """A function of views [B, V] that gives the representations [B, R] of the reference views.

    What whitens them is fitted to pictures as they come in training, and kept in the folder.
    """
    look = jax.jit(lambda context: looker(views.from_batch(context).images[:, reference]))
    reference = 0 if data.reference == "first" else data.context_views // 2
    path = folder / PROJECTION
    if not path.exists():
        ahead = progress.Progress(LOOKED_AT, "pictures looked at", say)
        seen = []
        batches = pipeline.train_batches(source, data, seed=0, batch_size=BATCH_SIZE)
        with contextlib.closing(batches):
            for batch in itertools.islice(batches, LOOKED_AT // BATCH_SIZE):
                seen.append(jax.device_get(look(batch["context"])))
                ahead.add(BATCH_SIZE)
        representation.fit(seen).save(path)
    projection = representation.load_projection(path)
    return jax.jit(lambda context: projection(look(context)))


def _batches(
    source: Source, data: DataSettings, scenes: range, batch_size: int
) -> Iterator[list[dict[str, Any]]]:
    """All entries of some scenes, B at a time; fewer at the end."""
    pending: list[dict[str, Any]] = []
    with contextlib.closing(pipeline.scenes_with_all_draws(source, data, scenes)) as served:
        for entries in served:
            pending += entries
            while len(pending) >= batch_size:
                yield pending[:batch_size]
                pending = pending[batch_size:]
    if pending:
        yield pending


def _needed(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: batch[name] for name in ("context", "scene_index", "draw")}


@functools.partial(jax.jit, static_argnames="max_known")
def _encode(
    plain: FrozenAutoencoder, batch: Mapping[str, Any], *, max_known: int
) -> dict[str, jax.Array]:
    """What a record holds of the latents of B entries."""
    context = views.from_batch(batch["context"])
    mask = conditioning.known_of_draw(
        batch["scene_index"], batch["draw"], context.images.shape[1], max_known=max_known
    )
    encoded = encoding.from_images(plain, context, mask)
    return {
        "mean": encoded.posterior.mean,
        "log_var": encoded.posterior.log_var,
        "known": encoded.known,
        "known_mask": encoded.known_mask,
    }
