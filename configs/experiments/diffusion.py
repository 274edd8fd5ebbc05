"""What the choices of stage 2 are worth: `python -m lgs_jax experiments diffusion`

Eight cases on one autoencoder for each of two seeds: 72 minutes on 2 CPU cores of an AMD EPYC with
`--jobs=2`.
"""


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`; each case changes one thing."""
    cases = {
        "as it is": {},
        "predicts eps": {"diffusion.kind": "eps"},
        "predicts x": {"diffusion.kind": "x"},
        "rectified flow": {"diffusion.process": "flow", "diffusion.schedule": "flow"},
        "shift 1": {"diffusion.shift": 1.0},
        "shift 4": {"diffusion.shift": 4.0},
        "cross-view: none": {"model.cross_view": ("none", "none")},
        "cross-view: resnet": {"model.cross_view": ("resnet", "resnet")},
    }
    return {
        "title": "Choices of stage 2",
        "question": "What changes if one thing of configs/diffusion.py is changed, at equal steps?",
        "stages": {
            "vae": {
                "config": "configs/vae.py",
                "set": {"training.num_steps": 500, "training.eval_every": 500},
            },
            "diffusion": {
                "config": "configs/diffusion.py",
                "set": {
                    "training.num_steps": 1000,
                    "training.eval_every": 1000,
                    "training.eval_batch_size": 4,
                },
            },
        },
        "cases": {name: {"diffusion": changes} for name, changes in cases.items()},
        "columns": {
            "error of x": "diffusion:eval/x_mse",
            "error of x, one view": "diffusion:eval/x_mse_one_view",
            "sample at the given view, dB": "diffusion:eval/sample_psnr_known",
            "sample at held-out views, dB": "diffusion:eval/sample_psnr_target",
            "spread of samples": "diffusion:eval/sample_spread",
            "seconds a step": "diffusion:step_seconds",
        },
        "rank": "-error of x",
        "baseline": "as it is",
    }
