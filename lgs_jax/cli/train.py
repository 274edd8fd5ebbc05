"""python -m lgs_jax train --config=CONFIG: trains a model; the same as python -m lgs_jax.main.

python -m lgs_jax train --config=configs/vae.py
python -m lgs_jax train --config=configs/diffusion.py --config.autoencoder=runs/vae
"""

import runpy
import sys


def main(arguments: list[str]) -> int:
    """Runs one training; leaves with its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    sys.argv = ["python -m lgs_jax train", *arguments]
    runpy.run_module("lgs_jax.main", run_name="__main__")
    return 0
