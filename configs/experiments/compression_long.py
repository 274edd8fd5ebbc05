"""Channels of the largest latents, trained longer: `python -m lgs_jax experiments compression_long`

The cases of `compression.py` whose order its two seeds did not agree about, the first stage alone:
four cases, two seeds, 13 to 36 minutes for each on one CPU core of an AMD EPYC beside other
programs. The table is in docs/results.md.
"""

import pathlib
import runpy

CONTESTED = ("H/4 x 6", "H/4 x 4", "H/4 x 8", "H/4 x 16")


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`."""
    short = runpy.run_path(str(pathlib.Path(__file__).with_name("compression.py")))
    experiment = short["get_experiment"]()
    vae = experiment["stages"]["vae"]
    vae["set"]["training.num_steps"] = 2000
    return {
        "title": "Channels of the largest latents, trained longer",
        "question": "Four times the steps of the experiment `compression`, where it was undecided.",
        "stages": {"vae": vae},
        "cases": {name: {"vae": experiment["cases"][name]["vae"]} for name in CONTESTED},
        "columns": {
            name: value for name, value in experiment["columns"].items() if value.startswith("vae:")
        },
        "rank": experiment["rank"],
        "baseline": "H/4 x 6",
    }
