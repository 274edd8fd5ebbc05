"""Latent diffusion over the views of a scene, stage 2, on the latents of a finished stage 1.

`python -m lgs_jax.main --config=configs/diffusion.py[:variant] --config.autoencoder=runs/vae`

| variant | autoencoder | made for |
| --- | --- | --- |
| (default) | configs/vae.py | 2 CPU cores |
| `long` | configs/vae.py:long | 2 CPU cores, hours |
| `objects_small` | configs/vae.py:objects_small | 2 CPU cores, 45 minutes |
| `rooms_small` | configs/vae.py:rooms_small, root, `--config.latents=...` | 2 cores, an hour |
| `mvimgnet_small` | configs/vae.py:mvimgnet_small, `--config.data.root=...` | 2 cores, an hour |
| `realestate10k` | configs/vae.py:realestate10k, `--config.data.root=...` | one GPU |
| `mvimgnet` | configs/vae.py:mvimgnet, `--config.data.root=...` | one GPU |
| `captures` | configs/vae.py:captures, `--config.data.root=...` | one GPU |
| `paper` | configs/vae.py:paper | several accelerators; never run |

The default took 33 minutes on one core of an AMD EPYC beside other programs (2,000 steps of 8
scenes, 2.3 a second where little else ran) and reaches 19.4 dB at a given view, 16.2 at held-out
ones, and no scenes from nothing yet. Scores of others, with their commands: docs/results.md.

The data, image size, views, scene frame and compression must be those of the autoencoder; the run
says what differs. One network learns to sample with none to all views known; that the encoder can
take one view alone is what `config.loss.view_dropout` of configs/vae.py is for.

Encoding takes a part of every step, and making or reading images another. Both can be done once:
`python -m lgs_jax encode-latents --autoencoder=runs/vae --output=runs/latents --draws=8`, then
`--config.latents=runs/latents --config.data.view_draws=8`. A scene is then seen with one of 8 fixed
choices of views instead of a new one at every visit; with `view_draws` alone the same run encodes
at every step, with the same results up to rounding. `rooms_small`, which has no classes to be told,
is told what each picture shows instead: encode its latents with `--representation=alex` (LPIPS
weights of the extra `lpips`).

Every value can be changed on the command line: `--config.sampler.steps=50`. Keys that are not named
here have the defaults of the settings classes (`DataSettings`, `DiffusionSettings`,
`SamplerSettings`, `OptimizerSettings`, `TrainSettings`, `MeshSettings`, and the attributes of
`Denoiser`).
"""

import ml_collections


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of a variant; None is the default, for a laptop."""
    variants = {
        "long": _long,
        "objects_small": _objects_small,
        "rooms_small": _rooms_small,
        "mvimgnet_small": _mvimgnet_small,
        "realestate10k": _realestate10k,
        "mvimgnet": _mvimgnet,
        "captures": _captures,
        "paper": _paper,
    }
    config = _laptop()
    if variant:
        if variant not in variants:
            raise ValueError(f"{variant=} is not known; expected one of {', '.join(variants)}")
        variants[variant](config)
    return config


def _laptop() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "diffusion"
    config.seed = 0
    config.autoencoder = ""
    config.latents = ""
    config.data = ml_collections.ConfigDict(
        {
            "source": "procedural",
            "root": "",
            "num_scenes": 2000,
            "num_frames": 12,
            "height": 48,
            "width": 48,
            "context_views": 4,
            "target_views": 2,
            "gap_min": 3,
            "reference": "first",
        }
    )
    config.model = ml_collections.ConfigDict(
        {
            "latent_channels": 6,
            "compression": 4,
            "num_classes": 0,
            "embedding_size": 128,
            "widths": (96, 128),
            "blocks_per_level": 1,
            "middle_blocks": 1,
            "attention_levels": (1,),
            "num_heads": 4,
            "cross_view": ("resnet", "full"),
            "dtype": "float32",
            "remat": "none",
        }
    )
    config.diffusion = ml_collections.ConfigDict(
        {
            "process": "vp",
            "kind": "v",
            "schedule": "cosine",
            "log_snr_min": -12.0,
            "log_snr_max": 12.0,
            "shift": 2.0,
            "weighting": "uniform",
            "unconditional": 0.2,
            "max_known": 0,
            "class_drop": 0.1,
        }
    )
    config.sampler = ml_collections.ConfigDict(
        {"name": "dpm_solver_pp_2m", "steps": 25, "grid": "time_uniform", "guidance": 1.0}
    )
    config.optimizer = ml_collections.ConfigDict(
        {"learning_rate": 1e-3, "warmup_steps": 100, "weight_decay": 0.0, "clip_norm": 1.0}
    )
    config.training = ml_collections.ConfigDict(
        {
            "num_steps": 2000,
            "batch_size": 8,
            "accumulate_steps": 1,
            "ema_decay": 0.995,
            "log_every": 20,
            "eval_every": 500,
            "eval_scenes": 32,
            "save_every": 500,
        }
    )
    config.mesh = ml_collections.ConfigDict({"data": -1, "fsdp": 1})
    return config


def _long(config: ml_collections.ConfigDict) -> None:
    """The default job for hours."""
    config.data.num_scenes = 10_000
    config.training.num_steps = 20_000
    config.training.ema_decay = 0.999
    config.training.eval_every = config.training.save_every = 2000


def _objects_small(config: ml_collections.ConfigDict) -> None:
    """Procedural objects, of a class that may be asked for."""
    config.data.kind = "objects"
    config.data.num_scenes = 6000
    config.data.num_frames = 24
    config.data.context_views = 2
    config.data.gap_min, config.data.gap_max = 2, 4
    config.data.beyond = 0.5
    config.data.view_draws = 4
    config.model.latent_channels = 16
    config.model.compression = 8
    config.model.num_classes = 14  # "room" and 13 kinds of objects
    config.model.widths = (128, 192)
    config.model.attention_levels = ()
    config.model.cross_view = ("full", "full")
    config.diffusion.unconditional = 0.35
    config.optimizer.learning_rate = 1.2e-3
    config.training.num_steps = 8000
    config.training.batch_size = 24
    config.training.ema_decay = 0.999
    config.training.eval_every = 2000
    config.training.eval_batch_size = 4
    config.training.save_every = 1000


def _rooms_small(config: ml_collections.ConfigDict) -> None:
    """Rooms from two near views, a third of them procedural; `--config.data.root=...`."""
    _objects_small(config)
    config.data.source = "realestate10k"
    config.data.kind = "rooms"  # of the procedural ones
    config.data.num_scenes = None
    config.data.num_frames = 12
    config.data.crop = "random"
    config.data.flip = True
    config.data.view_draws = 8
    config.data.mix = ({"source": "procedural", "root": "", "num_scenes": 2000, "weight": 0.5},)
    config.model.num_classes = 0
    config.model.representation_size = 64  # of encode-latents --representation=alex
    config.model.widths = (112, 168)
    config.diffusion.unconditional = 0.5
    config.diffusion.class_drop = 0.2
    config.training.num_steps = 10_000


def _mvimgnet_small(config: ml_collections.ConfigDict) -> None:
    """Photographed objects, of a class that may be asked for; `--config.data.root=...`."""
    _objects_small(config)
    config.data.source = "mvimgnet"
    config.data.num_scenes = None
    config.data.gap_min, config.data.gap_max = 1, 2
    config.data.flip = True
    config.data.view_draws = 8
    config.model.num_classes = 28  # of the set in docs/history.md; MVImgNet itself has 238
    config.training.num_steps = 10_000


def _small_real(config: ml_collections.ConfigDict) -> None:
    """A model for small photographs, on one GPU."""
    config.data.height = config.data.width = 64
    config.data.target_views = 3
    config.data.num_scenes = None
    config.data.num_frames = 16  # of procedural scenes only
    config.data.gap_min = 1
    config.model.compression = 8
    config.model.embedding_size = 512
    config.model.widths = (192, 256, 384)
    config.model.blocks_per_level = 2
    config.model.middle_blocks = 2
    config.model.attention_levels = (0, 1, 2)
    config.model.num_heads = 8
    config.model.cross_view = ("resnet", "full", "full")
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 1000
    config.training.num_steps = 200_000
    config.training.batch_size = 32
    config.training.ema_decay = 0.9995
    config.training.log_every = 50
    config.training.eval_every = config.training.save_every = 5000


def _realestate10k(config: ml_collections.ConfigDict) -> None:
    """Camera walks: `<root>/<split>/<id>.txt` and `<root>/frames/<split>/<id>/<timestamp>.jpg`."""
    _small_real(config)
    config.data.source = "realestate10k"
    config.data.reference = "first"


def _mvimgnet(config: ml_collections.ConfigDict) -> None:
    """Arcs around objects: `<root>/<class>/<instance>/{images,sparse/0}`.

    With classes: `--config.model.num_classes=N`, the number of folders in the root.
    """
    _small_real(config)
    config.data.source = "mvimgnet"
    config.data.reference = "middle"


def _captures(config: ml_collections.ConfigDict) -> None:
    """Folders with a NeRF `transforms.json` each."""
    _small_real(config)
    config.data.source = "transforms"
    config.data.reference = "middle"
    config.data.gap_max = 4


def _paper(config: ml_collections.ConfigDict) -> None:
    """6 views of 96², latents 12 x 12 x 6, full width (docs/paper_map.md says whose choice)."""
    _realestate10k(config)
    config.data.height = config.data.width = 96
    config.data.context_views = config.data.target_views = 6
    config.model.widths = (256, 512, 768)
    config.model.cross_view = ("resnet",) * 3
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.01
    config.training.num_steps = 500_000
    config.training.batch_size = 128
    config.training.ema_decay = 0.9999
    config.training.eval_every = config.training.save_every = 10_000
