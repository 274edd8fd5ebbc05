"""Gaussian scenes as OpenUSD layers: .usda (text), .usdc (binary) and .usdz (binary in a package).

One prim `ParticleField3DGaussianSplat`, the schema that OpenUSD has had since 26.03, with float32
arrays: linear scales and opacities, colours as degree-0 spherical harmonics. The stage is Y-up
with axes right-up-back; scenes come and go in those of the cameras' world. Needs the package
usd-core.

Letters: N Gaussians.
"""

import pathlib
import struct
import tempfile
import warnings
import zipfile
import zlib
from typing import Any

import numpy as np

from lgs_jax import files
from lgs_jax.core import gaussians
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import fields, ply

SUFFIXES = (".usda", ".usdc", ".usdz")
_KIND = "ParticleField3DGaussianSplat"
_HARMONICS = "radiance:sphericalHarmonicsCoefficients"
_DEGREE = "radiance:sphericalHarmonicsDegree"

# Scenes are right-down-front; stages are Y-up or Z-up, seen from the front with x to the right.
_SCENE_FROM_STAGE = {
    "Y": np.diag([*fields.ABOUT_X, 1.0]),
    "Z": np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
}
_EXTENT_SIGMAS = 3.0

# What zipfile raises on damaged packages.
_BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError),
    *(EOFError, OSError, ValueError),
)


def save_usd(path: str | pathlib.Path, scene: Gaussians) -> pathlib.Path:
    """Writes one scene (N Gaussians, RGB) and returns the path; nothing is rounded but to float32.

    The file appears only when complete.

    Raises:
      ValueError: if the scene is batched, is not RGB, or holds values that the format cannot; if
        usd-core is not installed.
      OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    pxr = _pxr(path)
    means, quats, scales, opacities, colors = ply.host_values(path, scene)
    means, quats = fields.half_turn(means, quats, fields.ABOUT_X)
    unit = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    reach = _EXTENT_SIGMAS * scales.max(axis=-1, keepdims=True)
    extent = [(means - reach).min(axis=0), (means + reach).max(axis=0)]

    stage = pxr.Usd.Stage.CreateInMemory()
    pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.y)
    pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    splats = pxr.UsdVol.ParticleField3DGaussianSplat.Define(stage, "/Splats")
    stage.SetDefaultPrim(splats.GetPrim())

    def array(kind: Any, values: Any) -> Any:
        return kind.FromNumpy(np.ascontiguousarray(values, np.float32))

    vectors = pxr.Vt.Vec3fArray
    splats.CreatePositionsAttr(array(vectors, means))
    splats.CreateScalesAttr(array(vectors, scales))
    # In memory, the real part comes last.
    splats.CreateOrientationsAttr(array(pxr.Vt.QuatfArray, np.roll(unit, -1, axis=-1)))
    splats.CreateOpacitiesAttr(array(pxr.Vt.FloatArray, opacities))
    splats.CreateRadianceSphericalHarmonicsDegreeAttr(0)
    harmonics = splats.CreateRadianceSphericalHarmonicsCoefficientsAttr(
        array(vectors, (colors - 0.5) / ply.SH_DEGREE_0)
    )
    primvar = pxr.UsdGeom.Primvar(harmonics)
    primvar.SetElementSize(1)
    primvar.SetInterpolation(pxr.UsdGeom.Tokens.vertex)
    splats.CreateExtentAttr(array(vectors, extent))
    with files.replacing(path) as partial:
        _export(pxr, stage.GetRootLayer(), partial)
    return path


def load_usd(path: str | pathlib.Path) -> Gaussians:
    """Reads the Gaussians of a stage, placed as its transforms say at the default time.

    Y-up and Z-up stages are read, whatever their unit of length. Colours that depend on the
    direction of view are left out with a warning.

    Raises:
      ValueError: naming the file and what is wrong with it; if usd-core is not installed.
    """
    path = pathlib.Path(path)
    pxr = _pxr(path)
    path.open("rb").close()  # OpenUSD tells a missing file from a damaged one by nothing
    if path.suffix.lower() == ".usdz":
        _check_package(path)
    unreadable = f"{path}: OpenUSD cannot read it; it is no USD file, or is damaged"
    try:
        layer = pxr.Sdf.Layer.OpenAsAnonymous(str(path))
        if layer is None:
            raise ValueError(unreadable)
        parts = _all_splats(pxr, path, pxr.Usd.Stage.Open(layer))
    except (pxr.Tf.ErrorException, UnicodeDecodeError) as error:  # whose text may be no UTF-8
        raise ValueError(unreadable) from error
    if not parts:
        raise ValueError(f"{path}: the stage has no {_KIND}, so there are no Gaussians")
    return gaussians.concatenate(parts)


def _check_package(path: pathlib.Path) -> None:
    """Refuses a damaged .usdz by its checksums, before OpenUSD follows what it says."""
    try:
        with zipfile.ZipFile(path) as package:
            damaged = package.testzip()
    except _BROKEN_ZIP as error:
        raise ValueError(f"{path}: OpenUSD cannot read it; it is no zip archive") from error
    if damaged:
        raise ValueError(f"{path}: {damaged} in it does not fit its checksum; it is damaged")


def _all_splats(pxr: Any, path: pathlib.Path, stage: Any) -> list[Gaussians]:
    """The Gaussians of every prim of a stage."""
    up = str(pxr.UsdGeom.GetStageUpAxis(stage))
    if up not in _SCENE_FROM_STAGE:
        raise ValueError(f"{path}: up is {up}, expected {' or '.join(_SCENE_FROM_STAGE)}")
    places = pxr.UsdGeom.XformCache()
    parts = []
    for prim in stage.Traverse():
        if prim.GetTypeName() == _KIND:
            world_from_prim = np.array(places.GetLocalToWorldTransform(prim)).T
            parts.append(_splats(path, prim, _SCENE_FROM_STAGE[up] @ world_from_prim))
    return parts


def _splats(path: pathlib.Path, prim: Any, scene_from_prim: np.ndarray) -> Gaussians:
    """The Gaussians of one prim, in the axes of the cameras' world."""

    def read(name: str, *shape: int) -> np.ndarray:
        """An array in full or, where there is none, half precision."""
        full, half = (prim.GetAttribute(name + end) for end in ("", "h"))
        value = full.Get() if full and full.HasAuthoredValue() else half and half.Get()
        try:
            return np.array([] if value is None else value, np.float64).reshape(shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"{path}: {prim.GetPath()}.{name} does not hold {' x '.join(map(str, shape))} "
                f"numbers ({error}); the file is damaged"
            ) from error

    means = read("positions", -1, 3)
    count = len(means)
    quats = np.roll(read("orientations", count, 4), 1, axis=-1)
    scales, opacities = read("scales", count, 3), read("opacities", count)
    num_harmonics = (max(prim.GetAttribute(_DEGREE).Get(), 0) + 1) ** 2
    f_dc = read(_HARMONICS, count, num_harmonics, 3)
    if f_dc[:, 1:].any():
        warnings.warn(
            f"{path}: {3 * (num_harmonics - 1)} view-dependent colour coefficients per "
            "Gaussian are left out: Gaussians hold one colour for all directions",
            stacklevel=4,
        )
    scene = fields.from_file(
        path,
        means=means,
        quats=quats,
        scales=np.where(scales == 0, fields.THINNEST, scales),
        opacities=opacities,
        colors=0.5 + ply.SH_DEGREE_0 * f_dc[:, 0],
    )
    return fields.placed(path, scene, scene_from_prim)


def _export(pxr: Any, layer: Any, path: pathlib.Path) -> None:
    """Writes a layer in the form that the suffix names."""
    unwritable = f"{path}: OpenUSD could not write it; choose a folder that can be written"
    try:
        if path.suffix.lower() != ".usdz":
            done = layer.Export(str(path))
        else:
            with tempfile.TemporaryDirectory() as folder:
                inner = pathlib.Path(folder) / "splats.usdc"
                done = layer.Export(str(inner))
                done = done and pxr.UsdUtils.CreateNewUsdzPackage(str(inner), str(path))
    except pxr.Tf.ErrorException as error:
        raise OSError(unwritable) from error
    if not done:
        raise OSError(unwritable)


def _pxr(path: pathlib.Path) -> Any:
    """The package, with what is used of it."""
    try:
        import pxr
        from pxr import Sdf, Tf, Usd, UsdGeom, UsdUtils, UsdVol, Vt  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{path}: USD needs the package usd-core; pip install 'lgs_jax[usd]'"
        ) from error
    if not hasattr(pxr.UsdVol, _KIND):
        raise ValueError(
            f"{path}: this OpenUSD {'.'.join(map(str, pxr.Usd.GetVersion()))} has no {_KIND}; "
            "pip install 'usd-core>=26.3'"
        )
    return pxr
