"""python -m lgs_jax unpack-model: writes a model that was packed as workdirs, to train on from it.

The folder `vae` then stands for a finished run of configs/vae.py, `diffusion` for one of
configs/diffusion.py: evaluate them, encode latents with the first, or start runs from them. A model
with a weaker denoiser for autoguidance has that in `guide`. The model is one that comes with the
package, or a file that pack-model has written.

  python -m lgs_jax unpack-model --model=objects-small --output=runs/objects-small
  python -m lgs_jax.main --config=configs/vae.py:rooms_small --config.data.root=...
    --config.training.init_from=runs/objects-small/vae
"""

import argparse

from lgs_jax.cli import reporting
from lgs_jax.inference import model_file, pretrained
from lgs_jax.training import checkpoint


def main(arguments: list[str]) -> int:
    """Writes the workdirs; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        workdirs = model_file.unpack(pretrained.find(options.model), options.output)
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        return reporting.fail(error)
    for what, workdir in zip(("autoencoder", "denoiser", "guide"), workdirs, strict=False):
        print(f"{what + ':':12} {workdir}")
    print(f"sample with python -m lgs_jax sample --model={workdirs[1]}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax unpack-model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(pretrained.names())
    parser.add_argument("--model", required=True, help=f"{names}, or a file")
    parser.add_argument("--output", required=True, help="folder to be made")
    return parser
