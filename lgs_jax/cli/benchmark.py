"""python -m lgs_jax benchmark WHAT: measures a part of the package on this machine."""

import argparse

from lgs_jax import __main__ as front
from lgs_jax.cli import (
    benchmark_check_data,
    benchmark_data,
    benchmark_rasterizer,
    benchmark_sampling,
    benchmark_scaling,
)

_BENCHMARKS = {
    "check-data": benchmark_check_data.main,
    "data": benchmark_data.main,
    "rasterizer": benchmark_rasterizer.main,
    "sampling": benchmark_sampling.main,
    "scaling": benchmark_scaling.main,
}


def main(arguments: list[str]) -> int:
    """Runs one benchmark; returns the exit status."""
    width = max(map(len, _BENCHMARKS))
    parts = (f"  {what:{width}}  {front.summary(f'benchmark-{what}')}" for what in _BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax benchmark",
        usage=f"%(prog)s [-h] {{{','.join(_BENCHMARKS)}}} [its options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(parts),
    )
    parser.add_argument("what", choices=_BENCHMARKS, help="see below")
    options = parser.parse_args(arguments[:1])
    return _BENCHMARKS[options.what](arguments[1:]) or 0
