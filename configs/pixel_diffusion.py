"""Diffusion in pixel space that renders in every step: the rival of latent diffusion.

`python -m lgs_jax.main --config=configs/pixel_diffusion.py[:variant]`

| variant | made for |
| --- | --- |
| (default) | 2 CPU cores |
| `long` | 2 CPU cores, hours |
| `realestate10k` | one GPU, `--config.data.root=...` |
| `mvimgnet` | one GPU, `--config.data.root=...` |
| `captures` | one GPU, `--config.data.root=...` |
| `paper` | several accelerators; never run |

Data, views, image size, widths, blocks, process and sampler are those of the same variant of
configs/diffusion.py, and the splats those of configs/vae.py. There is no stage before this one. The
U-Net runs at H / `patch_size`, which is the autoencoder's: its first convolution sees as much of
the image. Attention stays at the coarse levels where the maps are larger than the latents'.

`python -m lgs_jax benchmark sampling` compares the speed of both. After 1,000 steps of the default
(28 and 37 minutes on one core of an AMD EPYC beside other programs) samples have 22.4 dB at a given
view and 15.6 at held-out ones (docs/results.md, "The rival, trained").

Every value can be changed on the command line: `--config.model.patch_size=1`. Keys that are not
named here have the defaults of the settings classes (`DataSettings`, `PixelLossSettings`,
`DiffusionSettings`, `SamplerSettings`, `RenderingSettings`, `OptimizerSettings`, `TrainSettings`,
`MeshSettings`, and the attributes of `PixelDenoiser`).
"""

import ml_collections


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of a variant; None is the default, for a laptop."""
    variants = {
        "long": _long,
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
    config.task = "pixel_diffusion"
    config.seed = 0
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
            "patch_size": 4,
            "shortcut": True,
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
            "scene_head": {"near": 0.5, "far": 50.0, "initial_depth": 3.0, "max_scale": 4.0},
        }
    )
    config.loss = ml_collections.ConfigDict({"target": 1.0})
    config.diffusion = ml_collections.ConfigDict(
        {
            "process": "vp",
            "kind": "x",
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
    config.rendering = ml_collections.ConfigDict(
        {"implementation": "", "tile_size": 0, "slots_per_splat": 0}
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


def _small_real(config: ml_collections.ConfigDict) -> None:
    """A model for small photographs, on one GPU."""
    config.data.height = config.data.width = 64
    config.data.target_views = 3
    config.data.num_scenes = None
    config.data.num_frames = 16  # of procedural scenes only
    config.data.gap_min = 1
    config.model.patch_size = 1
    config.model.scene_head.max_scale = 10.0
    config.model.embedding_size = 512
    config.model.widths = (192, 256, 384)
    config.model.blocks_per_level = 2
    config.model.middle_blocks = 2
    config.model.attention_levels = (2,)
    config.model.num_heads = 8
    config.model.cross_view = ("resnet",) * 3
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
    """6 views of 96², full width, every pixel a splat (docs/paper_map.md says whose choice)."""
    _realestate10k(config)
    config.data.height = config.data.width = 96
    config.data.context_views = config.data.target_views = 6
    config.model.widths = (256, 512, 768)
    config.model.scene_head.near = 0.01
    config.model.scene_head.far = 10.0
    config.model.scene_head.initial_depth = 1.0
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.01
    config.training.num_steps = 500_000
    config.training.batch_size = 128
    config.training.ema_decay = 0.9999
    config.training.eval_every = config.training.save_every = 10_000
