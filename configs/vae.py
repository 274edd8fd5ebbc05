"""The multi-view autoencoder, stage 1: `python -m lgs_jax.main --config=configs/vae.py[:variant]`.

| variant | data | made for |
| --- | --- | --- |
| (default) | procedural rooms and objects, ray traced from a seed | 2 CPU cores, 12 minutes |
| `long` | the same | 2 CPU cores, an hour |
| `objects_small` | procedural objects | 2 CPU cores, 40 minutes; for samples |
| `rooms_small` | RealEstate10K layout and procedural rooms | 2 CPU cores, an hour; for samples |
| `mvimgnet_small` | MVImgNet layout, `--config.data.root=...` | 2 CPU cores, an hour; for samples |
| `realestate10k` | RealEstate10K layout, `--config.data.root=...` | one GPU |
| `mvimgnet` | MVImgNet layout, `--config.data.root=...` | one GPU |
| `captures` | folders with a transforms.json, `--config.data.root=...` | one GPU |
| `re10k_2view` | RealEstate10K layout at 256 x 256, 2 + 3 views | one GPU; never run |
| `paper` | RealEstate10K at 96 x 96, 6 + 6 views, full width | several accelerators; never run |

Expected PSNR at encoded / held-out views of unseen scenes: default 21.8 to 22.1 / 20.2 to 20.4 dB
(by processor), `long` 22.6 / 21.3 (the nearest photograph: 16.0, 16.5). Others, with their
commands: docs/results.md.

Samples of stage 2 look better through a decoder that has met noisy latents. Once stage 2 is
trained, go on from this stage with the decoder alone, `--config.training.init_from=runs/vae
--config.loss.train_encoder=False --config.loss.latent_noise=0.3` (and LPIPS:
`--config.loss.perceptual=lpips_alex --config.loss.perceptual_resize_to=96`), in another workdir,
which `python -m lgs_jax pack-model --decoder` takes.

Every value can be changed on the command line: `--config.data.height=64`. Keys that are not named
here have the defaults of the settings classes (`DataSettings`, `LossSettings`, `RenderingSettings`,
`OptimizerSettings`, `TrainSettings`, `MeshSettings`, and the attributes of `Autoencoder`).
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
        "re10k_2view": _re10k_2view,
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
    config.task = "vae"
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
    # H/4 at 48 x 48: latent maps of 12 x 12, the size of the paper's at H/8 of 96 x 96.
    config.model = ml_collections.ConfigDict(
        {
            "compression": 4,
            "latent_channels": 6,
            "patch_size": 4,
            "widths": (64, 96),
            "blocks_per_level": 1,
            "middle_blocks": 1,
            "attention_levels": (1,),
            "num_heads": 4,
            "cross_view": ("resnet", "full"),
            "dtype": "float32",
            "remat": "none",
            "shortcut": True,
            "refine": 16,
            "scene_head": {"near": 0.5, "far": 50.0, "initial_depth": 3.0, "max_scale": 4.0},
        }
    )
    config.loss = ml_collections.ConfigDict(
        {
            "l1": 0.5,
            "l2": 3.0,
            "perceptual": "none",
            "perceptual_weight": 0.5,
            "perceptual_weights": "",
            "pixel_color": 1.0,
            "kl": 1e-6,
            "target": 1.0,
            "context_views": 1,
            # Stage 2 shows one view alone, so the encoder must have met that.
            "view_dropout": 0.1,
        }
    )
    config.metrics = ml_collections.ConfigDict({"lpips": "none", "lpips_weights": ""})
    config.rendering = ml_collections.ConfigDict(
        {"implementation": "", "tile_size": 0, "slots_per_splat": 0}
    )
    config.optimizer = ml_collections.ConfigDict(
        {"learning_rate": 2e-3, "warmup_steps": 50, "weight_decay": 0.0, "clip_norm": 1.0}
    )
    config.training = ml_collections.ConfigDict(
        {
            "num_steps": 1000,
            "batch_size": 4,
            "accumulate_steps": 1,
            "ema_decay": 0.99,
            "log_every": 20,
            "eval_every": 500,
            "eval_scenes": 32,
            "save_every": 250,
        }
    )
    config.mesh = ml_collections.ConfigDict({"data": -1, "fsdp": 1})
    return config


def _long(config: ml_collections.ConfigDict) -> None:
    """The default job for about an hour."""
    config.data.num_scenes = 10_000
    config.training.num_steps = 5000
    config.training.eval_every = 1000


def _objects_small(config: ml_collections.ConfigDict) -> None:
    """Procedural objects from two near views: sharper than views that lie far apart."""
    config.data.kind = "objects"
    config.data.num_scenes = 6000
    config.data.num_frames = 24
    config.data.context_views = 2
    config.data.gap_min, config.data.gap_max = 2, 4
    config.data.beyond = 0.5
    config.model.compression = 8
    config.model.latent_channels = 16
    config.model.patch_size = 2
    config.model.widths = (32, 64, 96)
    config.model.attention_levels = (2,)
    config.model.cross_view = ("resnet", "resnet", "full")
    config.loss.kl = 5e-3
    config.loss.context_views = 2
    config.loss.view_dropout = 0.15
    config.optimizer.learning_rate = 1.5e-3
    config.training.num_steps = 2500
    config.training.batch_size = 8
    config.training.ema_decay = 0.995
    config.training.eval_every = 1000
    config.training.save_every = 500


def _rooms_small(config: ml_collections.ConfigDict) -> None:
    """Two near views of rooms, a third of them procedural; `--config.data.root=...`."""
    _objects_small(config)
    config.data.source = "realestate10k"
    config.data.kind = "rooms"  # of the procedural ones
    config.data.num_scenes = None
    config.data.num_frames = 12
    config.data.crop = "random"
    config.data.flip = True
    config.data.mix = ({"source": "procedural", "root": "", "num_scenes": 2000, "weight": 0.5},)
    config.training.num_steps = 4000


def _mvimgnet_small(config: ml_collections.ConfigDict) -> None:
    """Two neighbouring views of an arc around an object; `--config.data.root=...`."""
    _objects_small(config)
    config.data.source = "mvimgnet"
    config.data.num_scenes = None
    config.data.gap_min, config.data.gap_max = 1, 2
    config.data.flip = True
    config.training.num_steps = 3000


def _small_real(config: ml_collections.ConfigDict) -> None:
    """A model for small photographs, on one GPU (or a CPU with patience)."""
    config.data.height = config.data.width = 64
    config.data.target_views = 3
    config.data.num_scenes = None
    config.data.num_frames = 16  # of procedural scenes only
    config.data.gap_min = 1
    config.model.compression = 8
    config.model.patch_size = 1
    config.model.refine = 0
    config.model.widths = (64, 128, 192, 256)
    config.model.attention_levels = (3,)
    config.model.blocks_per_level = 2
    config.model.middle_blocks = 2
    config.model.cross_view = ("resnet", "resnet", "resnet", "full")
    config.model.scene_head.max_scale = 10.0
    config.loss.context_views = 0
    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 500
    config.training.num_steps = 50_000
    config.training.batch_size = 16
    config.training.ema_decay = 0.999
    config.training.eval_every = 2500
    config.training.save_every = 2500


def _realestate10k(config: ml_collections.ConfigDict) -> None:
    """Camera walks: `<root>/<split>/<id>.txt` and `<root>/frames/<split>/<id>/<timestamp>.jpg`."""
    _small_real(config)
    config.data.source = "realestate10k"
    config.data.reference = "first"


def _mvimgnet(config: ml_collections.ConfigDict) -> None:
    """Arcs around objects: `<root>/<class>/<instance>/{images,sparse/0}`."""
    _small_real(config)
    config.data.source = "mvimgnet"
    config.data.reference = "middle"


def _captures(config: ml_collections.ConfigDict) -> None:
    """Folders with a NeRF `transforms.json` each."""
    _small_real(config)
    config.data.source = "transforms"
    config.data.reference = "middle"
    config.data.gap_max = 4


def _re10k_2view(config: ml_collections.ConfigDict) -> None:
    """Two views 256², for `evaluate --protocol=re10k_2view`; the split "test" is held out."""
    _realestate10k(config)
    config.data.height = config.data.width = 256
    config.data.context_views, config.data.target_views = 2, 3
    config.data.holdout = ("test/*",)
    # From pixelSplat's nearest pairs in training to the widest of its evaluation index.
    config.data.gap_min, config.data.gap_max = 25, 135
    config.model.patch_size = 2
    config.model.widths = (128, 192, 256)
    config.model.attention_levels = (2,)
    config.model.num_heads = 8
    config.model.cross_view = ("resnet", "resnet", "attention")
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.loss.context_views = 1
    config.loss.perceptual = "lpips_vgg"
    config.loss.perceptual_weight = 0.05
    config.metrics.lpips = "vgg"
    config.training.num_steps = 300_000
    config.training.batch_size = 8
    config.training.ema_decay = 0.9999
    config.training.eval_every = config.training.save_every = 10_000


def _paper(config: ml_collections.ConfigDict) -> None:
    """96², 6 encoded and 6 held-out views, a U-Net of full width (docs/paper_map.md says whose)."""
    _realestate10k(config)
    config.data.height = config.data.width = 96
    config.data.context_views = config.data.target_views = 6
    config.model.widths = (128, 256, 384, 512)
    config.model.attention_levels = (2, 3)
    config.model.num_heads = 8
    config.model.cross_view = ("resnet",) * 4
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.model.shortcut = False
    config.model.refine = 0
    config.model.scene_head.near = 0.01
    config.model.scene_head.far = 10.0
    config.model.scene_head.initial_depth = 1.0
    config.loss.pixel_color = 0.0
    config.loss.perceptual = "lpips_vgg"
    config.loss.perceptual_weight = 0.5
    config.loss.view_dropout = 0.1
    config.metrics.lpips = "vgg"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.01
    config.training.num_steps = 500_000
    config.training.batch_size = 64
    config.training.ema_decay = 0.9999
    config.training.eval_every = config.training.save_every = 10_000
