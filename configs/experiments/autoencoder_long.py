"""What 500 steps cannot tell apart, at 2,000: `python -m lgs_jax experiments autoencoder_long`

The cases of `autoencoder.py` about which its two seeds disagreed: eight cases, two seeds, about two
hours on 2 CPU cores with `--jobs=2`. The table is in docs/results.md.
"""

import pathlib
import runpy

CONTESTED = (
    "as it is",
    "cross-view: none",
    "cross-view: resnet",
    "cross-view: attention",
    "cross-view: full",
    "depth: log",
    "KL weight 1e-3",
    "KL weight 1e-8",
)


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`."""
    short = runpy.run_path(str(pathlib.Path(__file__).with_name("autoencoder.py")))
    experiment = short["get_experiment"]()
    experiment["stages"]["vae"]["set"]["training.num_steps"] = 2000
    return experiment | {
        "title": "Parts of the autoencoder, trained longer",
        "question": "Four times the steps of the experiment `autoencoder`, the cases close to it.",
        "cases": {name: experiment["cases"][name] for name in CONTESTED},
    }
