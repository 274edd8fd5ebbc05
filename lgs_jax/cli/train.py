"""python -m lgs_jax train --config=CONFIG: trains a model; the same as python -m lgs_jax.main.

The same command continues a run that was stopped. SIGTERM or Ctrl-C saves and leaves with status
75. What a configuration holds, and what it was measured to do, stands in its file.

options:
  --config=FILE[:VARIANT]   the configuration, a Python file such as configs/vae.py:small
  --config.KEY=VALUE        another value of it, such as --config.training.num_steps=2000; the last
                            flag of a key counts
  --workdir=FOLDER          where to write, and to continue; default: runs/<config>[-variant]
  --distributed             join the other processes of this job
  --debug                   show the traceback of an error

  python -m lgs_jax train --config=configs/vae.py
  python -m lgs_jax train --config=configs/diffusion.py --config.autoencoder=runs/vae
"""

import runpy
import sys


def main(arguments: list[str]) -> int:
    """Runs one training; leaves with its exit status."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    sys.argv = ["python -m lgs_jax train", *arguments]
    runpy.run_module("lgs_jax.main", run_name="__main__")
    return 0
