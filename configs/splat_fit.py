"""The baseline that learns nothing across scenes: splats optimised for each scene's input views.

`python -m lgs_jax.main --config=configs/splat_fit.py:realestate10k --config.data.root=...`

It fits the first `training.eval_scenes` scenes that an evaluation of the autoencoder looks at, so
with the same `config.data` its scores stand beside those of configs/vae.py. Variants: none
(procedural scenes), `realestate10k`, `mvimgnet`, `captures`. The first takes a minute on one
core of an AMD EPYC for 8 scenes: 37.9 dB at the given views, 22.8 at held-out ones (nearest
photograph 17.9).

Keys that are not named here have the defaults of the settings classes (`DataSettings`,
`FitSettings`, `MetricSettings`, `RenderingSettings`, `OptimizerSettings`, `TrainSettings`,
`MeshSettings`).
"""

import ml_collections

SOURCES = {"realestate10k": "realestate10k", "mvimgnet": "mvimgnet", "captures": "transforms"}


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of a variant; None is procedural scenes."""
    config = ml_collections.ConfigDict()
    config.task = "splat_fit"
    config.seed = 0
    config.data = ml_collections.ConfigDict(
        {
            "source": "procedural",
            "root": "",
            "num_scenes": 1000,
            "num_frames": 12,
            "height": 48,
            "width": 48,
            "context_views": 4,
            "target_views": 2,
        }
    )
    config.model = ml_collections.ConfigDict({"stride": 2, "near": 0.5, "far": 50.0})
    config.metrics = ml_collections.ConfigDict({"lpips": "none", "lpips_weights": ""})
    config.rendering = ml_collections.ConfigDict(
        {"implementation": "", "tile_size": 0, "slots_per_splat": 0}
    )
    # Adam moves all parameters alike and the rates of the task scale them: no warm-up, no clipping.
    config.optimizer = ml_collections.ConfigDict(
        {"learning_rate": 0.05, "warmup_steps": 0, "clip_norm": 0.0}
    )
    config.training = ml_collections.ConfigDict(
        {
            "num_steps": 200,
            "batch_size": 1,
            "ema_decay": 0.0,
            "eval_scenes": 8,
            "eval_every": 0,
            "log_every": 20,
        }
    )
    if variant:
        if variant not in SOURCES:
            raise ValueError(f"{variant=} is not known; expected one of {', '.join(SOURCES)}")
        config.data.source = SOURCES[variant]
        config.data.num_scenes = None
        config.data.height = config.data.width = 64
        config.data.target_views = 3
        config.data.reference = "first" if variant == "realestate10k" else "middle"
        if variant == "captures":
            config.data.gap_max = 4
    return config
