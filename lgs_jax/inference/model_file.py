"""A trained model in one small file, to be given away: parameters, settings, camera paths.

The file is safetensors, compressed or not (`tensor_file`). Arrays are
`autoencoder/...`, `denoiser/...` and, where there is one, `guide/...` (the averaged parameters, by
their place in the network), `representations` [K, R] where the denoiser is told such, and
`paths/world_from_cam` [K, V, 4, 4], `paths/intrinsics` [K, V, 4] and `paths/class_label` [K]
(cameras and classes of K scenes of the kind that the model was trained on). The metadata's entry
`lgs_jax` is JSON with the configurations of the runs, the statistics of the latents, the names of
the classes and the steps of the checkpoints.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import files, settings, tasks
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import assemble, pipeline
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Source
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import encode_latents, tensor_file
from lgs_jax.inference import load as load_lib
from lgs_jax.models import frozen_autoencoder
from lgs_jax.models.guide import Guide
from lgs_jax.models.latent_stats import LatentStats
from lgs_jax.tasks.diffusion import DiffusionTask
from lgs_jax.tasks.diffusion_settings import SamplerSettings
from lgs_jax.training import checkpoint, older_configs, workdir

FORMAT = 1
DTYPES = {"float16": np.float16, "bfloat16": jnp.bfloat16, "float32": np.float32}

_ENTRY = "lgs_jax"
_EXPECTED = "expected a file that python -m lgs_jax pack-model has written"
_KEPT = ("task", "data", "model", "diffusion", "sampler", "latent_stats")
# The root of data that do not come with the file.
ELSEWHERE = "(give --data-root)"
# Stands for places on the machine that trained; files beside the data are not asked for again.
_ELSEWHERE = {"root": ELSEWHERE, "drop_frames": "", "view_index": ""}


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a model is made of.

    Attributes:
      frozen: the autoencoder, with the statistics of its latents.
      task: the denoiser and its process.
      params: the denoiser's.
      guide: a weaker denoiser for the sampler's `autoguidance`; None without.
      data: what it was trained on; its root is no folder here.
      paths: cameras [K, V] for images of the model's size, in the world of their scenes.
      path_classes: class labels [K] of those scenes.
      class_names: by class label; empty for a model without classes.
      configs: of the runs of stage 1, of stage 2 and of the guide, as far as they are kept.
      steps: of the checkpoints of the denoiser and of the guide.
    """

    frozen: frozen_autoencoder.FrozenAutoencoder
    task: DiffusionTask
    params: Any
    guide: Guide | None
    data: DataSettings
    paths: Cameras
    path_classes: tuple[int, ...]
    class_names: tuple[str, ...]
    configs: tuple[Mapping[str, Any], ...]
    steps: tuple[int, int]


def save(
    path: str | os.PathLike,
    run: str | os.PathLike,
    *,
    autoencoder: str | os.PathLike | None = None,
    decoder: str | os.PathLike | None = None,
    guide: str | os.PathLike | None = None,
    data_root: str | None = None,
    dtype: str = "float16",
    num_paths: int = 64,
    sampler: Mapping[str, Any] | None = None,
    pictures: encode_latents.Pictures | None = None,
) -> pathlib.Path:
    """Writes the newest checkpoint of a diffusion run and its autoencoder into one file.

    Args:
      path: of the file, ending in .safetensors, or in .safetensors.xz to compress it.
      run: the workdir of the diffusion run, or one of its checkpoints.
      autoencoder: where its autoencoder lies now; None: where the run found it.
      decoder: the workdir of a run that went on with the autoencoder's decoder alone, to take the
        place of its own; see `load.with_decoder`.
      guide: the workdir of a run of a weaker denoiser of the same latents, for the sampler's
        `autoguidance`; None: there is none.
      data_root: where its data lie now; None: where the run found them.
      dtype: of the parameters in the file, a name in `DTYPES`.
      num_paths: K; the first held-out scenes lend their cameras.
      sampler: settings (`SamplerSettings`) that samples are drawn with by default, in place of the
        run's.
      pictures: the training pictures near whose representations scenes from nothing are drawn;
        None: those that the run has kept.

    Raises:
      lgs_jax.training.checkpoint.CheckpointError: if a checkpoint is missing or damaged.
      lgs_jax.data.report.DataError: if the latents that `pictures` come with cannot be read.
      lgs_jax.settings.SettingsError: if it is the run of another task, or the autoencoder is not
        the one that it was trained on, the decoder is that of another one, or the guide does not
        fit.
      ValueError: if the parameters do not fit into `dtype`, or an argument cannot be honoured.
    """
    path = pathlib.Path(path).expanduser()
    if not tensor_file.suffix(path) or dtype not in DTYPES or num_paths < 1:
        raise ValueError(
            f"path={str(path)!r} must end in {' or '.join(tensor_file.SUFFIXES)}, {dtype=} be one "
            f"of {', '.join(DTYPES)} and {num_paths=} at least 1"
        )
    _, step = checkpoint.locate(run)
    config, params = checkpoint.restore_params(run, step=step)
    if config.get("task") != "diffusion":
        raise settings.SettingsError(
            f"{run} is a run of the task {config.get('task')!r}; expected one of "
            "configs/diffusion.py"
        )
    saved = load_lib.open_autoencoder(autoencoder or config["autoencoder"])
    saved.plain.check_gaussians("pack-model")
    stats = LatentStats.from_json(config["latent_stats"], f"the latent statistics of {run}")
    load_lib.check_autoencoder(saved, stats)
    if decoder is not None:
        saved = load_lib.with_decoder(saved, decoder)
    arrays = _flat("autoencoder", saved.plain.params, dtype) | _flat("denoiser", params, dtype)
    chosen = dict(config.get("sampler", {})) | dict(sampler or {})
    drawn = settings.build(SamplerSettings, chosen, "the sampler")
    scales = drawn.autoguidance_scales
    if drawn.truncation != 1 and not config.get("representations"):
        raise settings.SettingsError(
            f"truncation={drawn.truncation:g} is of representations, of which {run} keeps none; "
            "leave it out"
        )
    if (guide is None) != (scales == (1.0, 1.0)):
        raise settings.SettingsError(
            f"a guide ({guide}) and autoguidance={scales}: either is of no use without the other; "
            "give both, or neither (1)"
        )
    data = settings.build(DataSettings, config["data"], "the run's data")
    if data_root is not None:
        data = dataclasses.replace(data, root=data_root)
    source, paths = _paths(data, num_paths)
    arrays |= {f"paths/{name}": values for name, values in paths.items()}
    about = {
        "format": FORMAT,
        "autoencoder": _kept(saved.config),
        "denoiser": _kept(config | {"sampler": chosen} if chosen else config),
        "class_names": source.class_names if config["model"].get("num_classes") else (),
        "step": step,
    }
    bank = config.get("representations")
    if pictures is not None:
        placed = config | {"autoencoder": autoencoder or config["autoencoder"]}
        bank = pictures.representations(placed, data)
    if bank is not None:
        arrays["representations"] = np.asarray(bank, DTYPES[dtype])
    if guide is not None:
        about["guide_step"], weaker, params = load_lib.open_guide(guide, config)
        about["guide"] = _kept(weaker)
        arrays |= _flat("guide", params, dtype)
    tensor_file.save(path, arrays, about, entry=_ENTRY)
    return path


def load(path: str | os.PathLike) -> Parts:
    """Reads what `save` has written.

    Raises:
      lgs_jax.training.checkpoint.CheckpointError: if there is no such file, or it is damaged or
        something else.
    """
    path = pathlib.Path(path).expanduser()
    try:
        arrays, about = tensor_file.load(path, entry=_ENTRY)
    except FileNotFoundError as error:
        raise checkpoint.CheckpointError(f"there is no file {path}; {_EXPECTED}") from error
    except (ValueError, OSError) as error:
        raise checkpoint.CheckpointError(f"{path} cannot be read ({error}); {_EXPECTED}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise checkpoint.CheckpointError(
            f"{path} is of another version than {FORMAT} of this format; {_EXPECTED}"
        )
    try:
        return _parts(about, arrays)
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # SettingsError among them
        raise checkpoint.CheckpointError(f"{path} does not fit together: {error}") from error


def unpack(path: str | os.PathLike, folder: str | os.PathLike) -> list[pathlib.Path]:
    """Writes what `save` has packed as two workdirs, for other runs to build on.

    The folders `vae`, with the statistics of its latents, `diffusion` and, where there is one,
    `guide` hold a checkpoint of the parameters each. They serve wherever the workdir of a finished
    run does (`init_from`, `autoencoder`, encode-latents, evaluate), but no training can be
    continued in them. A run has no guide, so `diffusion` samples without autoguidance.

    Args:
      path: of the file.
      folder: to be made.

    Returns:
      the workdirs.

    Raises:
      lgs_jax.training.checkpoint.CheckpointError: if the file cannot be read; see `load`.
      FileExistsError: if there is such a folder already.
    """
    parts, folder = load(path), pathlib.Path(folder).expanduser().absolute()
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another folder, or delete it")
    first, second, *others = parts.configs
    stats = LatentStats.from_json(second["latent_stats"], "the latent statistics")
    runs = [("vae", stats.step, first, parts.frozen.params)]
    later = [("diffusion", parts.steps[0], second, parts.params)]
    if parts.guide is not None:
        later.append(("guide", parts.steps[1], others[0], parts.guide.params))
    for name, step, config, params in later:
        placed = {**_unguided(config), "autoencoder": str(folder / "vae")}
        runs.append((name, step, placed, params))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        files.write_json(partial / "vae" / load_lib.STATS_FILE, stats.to_json())
        for name, step, config, params in runs:
            checkpoint.write_params(partial / name / workdir.CHECKPOINTS, step, config, params)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [folder / name for name, *_ in runs]


def _unguided(config: Mapping[str, Any]) -> dict[str, Any]:
    """A packed configuration as that of a run, which has no guide."""
    if "sampler" not in config:
        return dict(config)
    kept = {name: x for name, x in config["sampler"].items() if "autoguidance" not in name}
    return {**config, "sampler": kept}


def _parts(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Parts:
    names = [name for name in ("autoencoder", "denoiser", "guide") if name in about]
    first, config, *weaker = configs = [older_configs.upgraded(about[name]) for name in names]
    if "representations" in arrays:
        for each in (config, *weaker):
            each["representations"] = arrays["representations"].astype(np.float32).tolist()
    stats = LatentStats.from_json(config["latent_stats"], "the latent statistics")
    frozen = frozen_autoencoder.from_run(first, _tree("autoencoder", arrays))
    frozen = frozen.with_stats(stats)
    guide = None
    if weaker:
        other = tasks.make_task("diffusion", weaker[0], frozen)
        guide = Guide(_checked("guide", arrays, other), other.model)
    task = tasks.make_task("diffusion", config, frozen, guide)
    params = _checked("denoiser", arrays, task)
    data = settings.build(DataSettings, config["data"], "the run's data")
    names = ("world_from_cam", "intrinsics")
    paths = Cameras(*(jnp.asarray(arrays[f"paths/{name}"]) for name in names)).check()
    if paths.batch_shape[1:] != (frozen.num_views,):
        raise settings.SettingsError(
            f"its camera paths have the shape {paths.batch_shape}, not [K, {frozen.num_views}]"
        )
    labels = arrays["paths/class_label"].tolist()
    return Parts(
        frozen,
        task,
        params,
        guide,
        data,
        paths,
        path_classes=tuple(labels),
        class_names=tuple(about["class_names"]),
        configs=tuple(configs),
        # The first version of this package did not keep the step.
        steps=(about.get("step", 1), about.get("guide_step", 1)),
    )


def _checked(name: str, arrays: Mapping[str, np.ndarray], task: DiffusionTask) -> Any:
    """The parameters of a denoiser, if they are those of its task."""
    params = _tree(name, arrays)
    wanted = jax.eval_shape(task.init, jax.random.key(0))
    if (found := _shapes(params)) != (expected := _shapes(wanted)):
        different = sorted(k for k in found.keys() | expected if found.get(k) != expected.get(k))
        raise settings.SettingsError(
            f"{len(different)} parameters of the {name} are not those of its configuration, "
            f"such as {different[0]}"
        )
    return params


def _flat(name: str, params: Any, dtype: str) -> dict[str, np.ndarray]:
    """Arrays by their place; refuses values that the type cannot hold."""
    flat = {}
    for place, value in flax.traverse_util.flatten_dict(params, sep="/").items():
        array = np.asarray(value, np.float32)
        with np.errstate(over="ignore"):
            flat[f"{name}/{place}"] = stored = array.astype(DTYPES[dtype])
        if not np.isfinite(np.asarray(stored, np.float32)).all():
            raise ValueError(f"{name}/{place} has values that {dtype=} cannot hold; use float32")
    return flat


def _tree(name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """The parameters of a network, in float32."""
    prefix = f"{name}/"
    own = {
        # Converted by NumPy: JAX would compile a program for each shape.
        place.removeprefix(prefix): jnp.asarray(array.astype(np.float32))
        for place, array in arrays.items()
        if place.startswith(prefix)
    }
    return flax.traverse_util.unflatten_dict(own, sep="/")


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {name: tuple(value.shape) for name, value in flat.items()}


def _paths(data: DataSettings, count: int) -> tuple[Source, dict[str, np.ndarray]]:
    """The data, and cameras and classes of its first held-out scenes, as evaluations see them."""
    source = pipeline.make_source(data, "eval")
    entries = [
        assemble.scene_entry(source, data, index, rng=None, cache=FrameCache(0))
        for index in range(min(count, len(source)))
    ]
    paths = {
        name: np.stack([entry["context"][name] for entry in entries])
        for name in ("world_from_cam", "intrinsics")
    }
    return source, paths | {"class_label": np.stack([entry["class_label"] for entry in entries])}


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed of a configuration, without places on the machine that trained."""
    kept = json.loads(json.dumps({name: config[name] for name in _KEPT if name in config}))
    for data in (kept["data"], *kept["data"].get("mix", ())):
        data |= {name: text for name, text in _ELSEWHERE.items() if data.get(name)}
    return kept
