"""What setup.cfg cannot say: the folder `configs` is a part of the package, as lgs_jax.configs."""

from setuptools import find_packages, setup

FOLDERS = {
    "lgs_jax.configs": "configs",
    "lgs_jax.configs.experiments": "configs/experiments",
}

setup(packages=[*find_packages(include=["lgs_jax*"]), *FOLDERS], package_dir=FOLDERS)
