"""python -m lgs_jax pack-model: puts a trained model into one small file, to be given away.

The file holds the parameters of the denoiser and its autoencoder, their settings, and the camera
paths of some held-out scenes; no pictures. Load it with `lgs_jax.load(file)`, or sample from it
with `python -m lgs_jax sample --model=file`.

  python -m lgs_jax pack-model --model=runs/diffusion --output=rooms.safetensors
"""

import argparse

from lgs_jax import files
from lgs_jax.cli import reporting
from lgs_jax.data import report
from lgs_jax.inference import encode_latents, model_file, tensor_file
from lgs_jax.training import checkpoint

_SAMPLER = ("steps", "guidance", "guidance_known", "autoguidance", "autoguidance_known")
_SAMPLER += ("truncation", "stop")


def main(arguments: list[str]) -> int:
    """Writes the file; returns the exit status."""
    options = _parser().parse_args(arguments)
    chosen = {name: getattr(options, name) for name in _SAMPLER}
    try:
        target = files.local(options.output, "--output")
        if target.exists() and not options.overwrite:
            raise FileExistsError(f"{target} exists; choose another name, or --overwrite")
        path = model_file.save(
            target,
            options.model,
            autoencoder=options.autoencoder,
            decoder=options.decoder,
            guide=options.guide,
            data_root=options.data_root,
            dtype=options.dtype,
            num_paths=options.paths,
            sampler={name: value for name, value in chosen.items() if value is not None},
            pictures=_pictures(options),
        )
        model_file.load(path)
    except (ValueError, OSError, report.DataError, checkpoint.CheckpointError) as error:
        return reporting.fail(error)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _pictures(options: argparse.Namespace) -> encode_latents.Pictures | None:
    """The training pictures asked for; None if the run's are to stay."""
    asked = {"count": options.pictures, "folder": options.latents}
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked and not options.no_mix:
        return None
    return encode_latents.Pictures(mixed=not options.no_mix, **asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax pack-model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, help="workdir of a run of configs/diffusion.py")
    add(
        "--output",
        required=True,
        help=f"file to write, ending in {' or '.join(tensor_file.SUFFIXES)}",
    )
    add("--overwrite", action="store_true", help="replace the file if it exists")
    add("--autoencoder", help="where its autoencoder lies now; default: where the run found it")
    add("--decoder", help="workdir of a run with loss.train_encoder=False: its decoder instead")
    add("--guide", help="workdir of a weaker denoiser of the same latents, for --autoguidance")
    add("--data-root", help="where its data lie now; default: where the run found them")
    add("--dtype", choices=model_file.DTYPES, default="float16", help="of the parameters")
    add("--paths", type=int, default=64, help="camera paths to keep, of as many held-out scenes")
    add("--steps", type=int, help="of the sampler, by default when the file is used")
    add("--guidance", type=float, help="scale of guidance, likewise")
    add("--guidance-known", type=float, help="scale where a view is known, likewise")
    add("--autoguidance", type=float, help="scale of guidance away from --guide, likewise")
    add("--autoguidance-known", type=float, help="scale where a view is known, likewise")
    add("--truncation", type=float, help="share of the representations kept, likewise")
    add("--stop", type=float, help="log-SNR at which the sampler ends, likewise")
    near = parser.add_argument_group(
        "scenes from nothing, of a model that is told what pictures show (config.latents)",
        "They are drawn near training pictures, those that the run has kept unless any of these "
        "is given.",
    )
    near.add_argument("--pictures", type=int, metavar="N", help="keep N of them; default: 512")
    near.add_argument("--no-mix", action="store_true", help="none of the data in config.data.mix")
    near.add_argument("--latents", help="where they lie now; default: where the run found them")
    return parser
