"""How small may latents be? `python -m lgs_jax experiments compression`

Twelve cases of two stages, two seeds: under two hours on 2 CPU cores of an AMD EPYC with
`--jobs=2`; the table and the plot are in docs/results.md. With more hardware raise the steps:
`-- --config.training.num_steps=20000`.
"""


def get_experiment() -> dict:
    """The arguments of `lgs_jax.inference.experiment.Experiment`."""
    return {
        "title": "Compression of the latents",
        "question": (
            "Reconstruction, what stage 2 makes of it, and the time of a sample, by the size of "
            "the latent maps and their channels; 48 x 48 images of procedural scenes."
        ),
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
        "cases": {
            f"H/{compression} x {channels}": _case(compression, channels)
            for compression in (4, 8, 16)
            for channels in (4, 6, 8, 16)
        },
        "columns": {
            "encoded views, dB": "vae:eval/context_psnr",
            "held-out views, dB": "vae:eval/target_psnr",
            "held-out SSIM": "vae:eval/target_ssim",
            "denoising loss": "diffusion:eval/loss",
            "sample at the given view, dB": "diffusion:eval/sample_psnr_known",
            "sample at held-out views, dB": "diffusion:eval/sample_psnr_target",
            "seconds a sample": "sampling_s",
        },
        "rank": "held-out views, dB",
        "plot": ("seconds a sample", "held-out views, dB"),
    }


def _case(compression: int, channels: int) -> dict:
    """Each halving of the maps is one more level of the autoencoder's U-Nets."""
    model = {"model.compression": compression, "model.latent_channels": channels}
    levels = {4: (64, 96), 8: (64, 96), 16: (64, 96, 96)}[compression]
    vae = model | {
        "model.widths": levels,
        "model.cross_view": ("resnet",) * (len(levels) - 1) + ("full",),
        "model.attention_levels": (len(levels) - 1,),
    }
    # A map of 3 x 3 cannot be halved again.
    if compression == 16:
        model |= {
            "model.widths": (128,),
            "model.cross_view": ("full",),
            "model.attention_levels": (0,),
        }
    return {"vae": vae, "diffusion": model}
