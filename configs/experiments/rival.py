"""The rival in pixel space, trained: `python -m lgs_jax experiments rival`

As many steps of the same data, widths and sampler as the first line of `diffusion.py`, with whose
columns of samples these can be compared; there is no stage before this one. On one core of an
AMD EPYC a training of the first case took 28 and 37 minutes beside other programs, of the second 16
and 13, of the third 56 and more; the table is in docs/results.md.
"""


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`."""
    return {
        "title": "Diffusion in pixel space",
        "question": "What are samples of the rival worth after as many steps as those of latents?",
        "stages": {
            "pixel": {
                "config": "configs/pixel_diffusion.py",
                "set": {
                    "training.num_steps": 1000,
                    "training.eval_every": 1000,
                    "training.eval_batch_size": 4,
                },
            },
        },
        "cases": {
            "splats": {},
            "splats, held-out views not in the loss": {"pixel": {"loss.target": 0.0}},
            "voxels": {"pixel": {"model.scene_head.kind": "voxels"}},
        },
        "columns": {
            "sample at the given view, dB": "pixel:eval/sample_psnr_known",
            "sample at held-out views, dB": "pixel:eval/sample_psnr_target",
            "spread of samples": "pixel:eval/sample_spread",
            "seconds a step": "pixel:step_seconds",
        },
        "rank": "sample at held-out views, dB",
    }
