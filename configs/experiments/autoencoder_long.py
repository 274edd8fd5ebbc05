"""What 500 steps cannot tell apart, at 2,000: `python -m lgs_jax experiments autoencoder_long`

The cases of `autoencoder.py` about which its two seeds disagreed: eight cases, two seeds, about two
hours on 2 CPU cores with `--jobs=2`. What has run of it: docs/results.md.
"""


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`; each case changes one thing."""
    cases = {
        "as it is": {},
        "cross-view: none": {"model.cross_view": ("none", "none")},
        "cross-view: resnet": {"model.cross_view": ("resnet", "resnet")},
        "cross-view: attention": {"model.cross_view": ("attention", "attention")},
        "cross-view: full": {"model.cross_view": ("full", "full")},
        "depth: log": {"model.scene_head.depth_activation": "log"},
        "KL weight 1e-3": {"loss.kl": 1e-3},
        "KL weight 1e-8": {"loss.kl": 1e-8},
    }
    return {
        "title": "Parts of the autoencoder, trained longer",
        "question": "Four times the steps of the experiment `autoencoder`, the cases close to it.",
        "stages": {
            "vae": {
                "config": "configs/vae.py",
                "set": {"training.num_steps": 2000, "training.eval_every": 500},
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
