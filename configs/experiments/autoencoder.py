"""What each part of the autoencoder is worth: `python -m lgs_jax experiments autoencoder`

Fourteen cases of stage 1, two seeds: about two and a half hours on 2 CPU cores.
"""


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`; each case changes one thing."""
    cases = {
        "as it is": {},
        "cross-view: none": {"model.cross_view": ("none", "none")},
        "cross-view: resnet": {"model.cross_view": ("resnet", "resnet")},
        "cross-view: attention": {"model.cross_view": ("attention", "attention")},
        "cross-view: full": {"model.cross_view": ("full", "full")},
        "2 views": {"data.context_views": 2},
        "6 views": {"data.context_views": 6, "data.gap_min": 2},
        "held-out views not in the loss": {"loss.target": 0.0},
        "view dropout 0": {"loss.view_dropout": 0.0},
        "view dropout 0.3": {"loss.view_dropout": 0.3},
        "KL weight 1e-8": {"loss.kl": 1e-8},
        "KL weight 1e-3": {"loss.kl": 1e-3},
        "depth: linear": {"model.scene_head.depth_activation": "linear"},
        "depth: log": {"model.scene_head.depth_activation": "log"},
    }
    return {
        "title": "Parts of the autoencoder",
        "question": "What changes if one thing of configs/vae.py is changed, at equal steps?",
        "stages": {
            "vae": {
                "config": "configs/vae.py",
                "set": {"training.num_steps": 500, "training.eval_every": 500},
            }
        },
        "cases": {name: {"vae": changes} for name, changes in cases.items()},
        "columns": {
            "encoded views, dB": "vae:eval/context_psnr",
            "held-out views, dB": "vae:eval/target_psnr",
            "held-out SSIM": "vae:eval/target_ssim",
            "seconds a step": "vae:step_seconds",
        },
        "rank": "held-out views, dB",
        "baseline": "as it is",
    }
