"""Splats or a radiance field? `python -m lgs_jax experiments representations`

Four kinds of scenes at equal steps of stage 1, two seeds: less than two hours of one CPU core,
on 32 x 32 images with 32 samples a ray, for at 48 x 48 with 64 a step of three planes takes nine
times as long as one of splats. What rendering them costs inside a sampler: `python -m lgs_jax
benchmark sampling --scenes gaussians voxels triplane image_planes`.
"""

SIZE, SAMPLES = 32, 32


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`."""
    fields = ("voxels", "triplane", "image_planes")
    heads = {
        kind: {"model.scene_head.kind": kind, "model.scene_head.samples": SAMPLES}
        for kind in fields
    }
    return {
        "title": "Kinds of scenes",
        "question": (
            "The same encoder and decoder, trained for the same number of steps with the same "
            "loss (without the colour term, which only splats have): how good is each kind of "
            "scene, and what do its step and its rendering (of the encoded views of one scene, "
            "time and temporary memory) cost?"
        ),
        "stages": {
            "vae": {
                "config": "configs/vae.py",
                "set": {
                    "training.num_steps": 500,
                    "training.eval_every": 500,
                    "loss.pixel_color": 0.0,
                    "data.height": SIZE,
                    "data.width": SIZE,
                },
            }
        },
        "cases": {
            "gaussians": {},
            "gaussians, with the colour term": {"vae": {"loss.pixel_color": 1.0}},
            **{kind: {"vae": head} for kind, head in heads.items()},
        },
        "columns": {
            "encoded views, dB": "vae:eval/context_psnr",
            "held-out views, dB": "vae:eval/target_psnr",
            "held-out SSIM": "vae:eval/target_ssim",
            "seconds a step": "vae:step_seconds",
            "rendering, s": "rendering_s",
            "its gradient, s": "rendering_gradient_s",
            "rendering, MiB": "rendering_mb",
            "its gradient, MiB": "rendering_gradient_mb",
        },
        "rank": "held-out views, dB",
    }
