"""Gaussian scenes as .spz files (Niantic): 20 bytes each, then compressed.

Versions 2 and 3 are one gzip stream: a header of 16 bytes, then every field of all Gaussians after
the other. Version 4 has a header of 32 bytes, a table of contents and one zstd stream per field;
several common viewers cannot read it yet, so 3 is what is written unless told otherwise. Positions
have 24 bits, the parts of the quaternion 10, everything else 8. Axes of the files are
right-up-back; scenes come and go in those of the cameras' world, as they do with
github.com/nianticlabs/spz and PlayCanvas' splat-transform.

Letters: N Gaussians.
"""

import dataclasses
import gzip
import math
import pathlib
import struct
import warnings
import zlib
from typing import Any

import numpy as np

from lgs_jax import files
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import fields, ply

_MAGIC = b"NGSP"
# Magic, version, N, degree of the spherical harmonics, fractional bits, flags, number of streams.
_HEADER = struct.Struct("<4sIIBBBB")
_TABLE_START = struct.Struct("<I12x")  # the rest of version 4's header
_TABLE_ENTRY = struct.Struct("<QQ")  # compressed and uncompressed bytes of a stream
_EXTENSION = struct.Struct("<II")  # its type and length
_ANTIALIASED, _EXTENDED, _LEVELS = 0x01, 0x02, 0x80
_ORBIT_EXTENSION, _AXES_EXTENSION = 0xADBE0002, 0xADBE0003
_RIGHT_UP_BACK = 4

# Bytes of the higher spherical harmonics of a Gaussian, by degree; 128 is a zero.
_HARMONICS = (0, 9, 24, 45, 72)
_ZERO_HARMONIC = 128
_POSITION_BITS = 24
# Of the positions, as Niantic writes them. More where the scene is so small that a step would be
# more than this share of its smaller splats, fewer where it is so large that it would not fit.
_FRACTIONAL_BITS = 12
_STEP_OF_SCALE, _SMALLER = 1 / 32, 0.05
_LOG_SCALE_START, _LOG_SCALE_STEPS = -10.0, 16.0
# f_dc is stored with this slope, so that colours from -0.44 to 1.44 have a byte.
_COLOR_SLOPE = 0.15
_PART_STEPS = 511.0 * math.sqrt(2)

# No deflate stream is larger inside; real scenes are far from it in either compression.
_MAX_RATIO = 1032
_MAX_EXTENSION_BYTES = 1 << 20
_ZSTD_LEVEL = 12


@dataclasses.dataclass(frozen=True)
class _Header:
    version: int
    count: int
    degree: int
    fractional_bits: int
    flags: int
    num_streams: int  # of version 4

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of positions, alphas, colours, scales, rotations and higher harmonics."""
        of_one = (9, 1, 3, 3, 3 if self.version == 2 else 4, _HARMONICS[self.degree])
        return tuple(self.count * size for size in of_one)


def save_spz(path: str | pathlib.Path, scene: Gaussians, *, version: int = 3) -> pathlib.Path:
    """Writes one scene (N Gaussians, RGB) and returns the path.

    Positions are rounded to a thirtieth of the smaller splats or less, as far as 24 bits reach.
    Scales below 4.5e-5 are raised to that; colours outside of [-0.44, 1.44] are cut off. The file
    appears only when complete.

    Args:
      path: of the file.
      scene: what to write.
      version: 3, or 4 (which needs the package zstandard).

    Raises:
      ValueError: if the scene is batched, is not RGB, or holds values that the format cannot.
    """
    if version not in (3, 4):
        raise ValueError(f"{path}: {version=} of .spz cannot be written; choose 3 or 4")
    values = ply.host_values(path, scene)
    count = len(values[0])
    fractional_bits, streams = _encode(path, *values)
    header = (_MAGIC, version, count, 0, fractional_bits, 0)
    if version == 3:
        data = gzip.compress(_HEADER.pack(*header, 0) + b"".join(streams), mtime=0)
    else:
        compressor = _zstandard(path).ZstdCompressor(level=_ZSTD_LEVEL)
        packed = [compressor.compress(stream) for stream in streams]
        start = _HEADER.size + _TABLE_START.size
        table = [_TABLE_ENTRY.pack(len(p), len(s)) for p, s in zip(packed, streams, strict=True)]
        parts = [_HEADER.pack(*header, len(streams)), _TABLE_START.pack(start), *table, *packed]
        data = b"".join(parts)
    with files.replacing(path) as partial:
        partial.write_bytes(data)
    return pathlib.Path(path)


def load_spz(path: str | pathlib.Path) -> Gaussians:
    """Reads a scene of N Gaussians of version 2, 3 or 4.

    Colours that depend on the direction of view are left out with a warning.

    Raises:
      ValueError: naming the file and what is wrong with it, or that version 4 needs zstandard.
    """
    path = pathlib.Path(path)
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        header, streams = _read_gzip(path, data)
    elif data.startswith(_MAGIC):
        header, streams = _read_zstd(path, data)
    else:
        raise ValueError(f"{path}: not an .spz file (it starts with neither gzip nor 'NGSP')")
    if header.flags & _ANTIALIASED:
        warnings.warn(
            f"{path}: made for antialiased rendering; pass antialiased=True to `render`",
            stacklevel=2,
        )
    if any(byte != _ZERO_HARMONIC for byte in set(streams.pop())):
        warnings.warn(
            f"{path}: {_HARMONICS[header.degree]} view-dependent colour coefficients per Gaussian "
            "are left out: Gaussians hold one colour for all directions",
            stacklevel=2,
        )
    return _decode(path, header, streams)


def _encode(
    path: str | pathlib.Path,
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
) -> tuple[int, list[bytes]]:
    """Fractional bits of the positions, and the five streams."""
    means, quats = fields.half_turn(means, quats, fields.ABOUT_X)
    fractional_bits = _choose_fractional_bits(path, means, scales)
    fixed = np.rint(means * 2.0**fractional_bits).astype("<i4")
    scale_bytes = np.rint((np.log(scales) - _LOG_SCALE_START) * _LOG_SCALE_STEPS)
    low, high = (math.exp(byte / _LOG_SCALE_STEPS + _LOG_SCALE_START) for byte in (0, 255))
    if bad := int(np.sum(scale_bytes > 255)):
        raise ValueError(
            f"{path}: {bad} scales are above {high:.0f}, the largest of .spz; reduce the scene, or "
            "write .ply"
        )
    if np.median(scale_bytes.max(axis=-1)) < 0:
        raise ValueError(
            f"{path}: most Gaussians are smaller than {low:.1e}, the smallest scale of .spz; "
            "enlarge the scene, or write .ply"
        )
    color_bytes = 255 * (_COLOR_SLOPE * (colors - 0.5) / ply.SH_DEGREE_0 + 0.5)
    return fractional_bits, [
        fixed.view(np.uint8).reshape(-1, 3, 4)[..., :3].tobytes(),
        np.rint(255 * opacities).astype(np.uint8).tobytes(),
        np.clip(np.rint(color_bytes), 0, 255).astype(np.uint8).tobytes(),
        np.maximum(scale_bytes, 0).astype(np.uint8).tobytes(),
        _pack_quats(quats).astype("<u4").tobytes(),
    ]


def _choose_fractional_bits(path: str | pathlib.Path, means: np.ndarray, scales: np.ndarray) -> int:
    """Bits behind the point of positions that fit the farthest and the smallest Gaussians."""
    farthest, limit = float(np.abs(means).max()), 2 ** (_POSITION_BITS - 1) - 1
    room = math.floor(math.log2(limit / max(farthest, 1.0)))
    if room < 1:
        raise ValueError(
            f"{path}: positions reach {farthest:.3g}, but .spz ends at {limit / 2:.3g}; reduce the "
            "scene, or write .ply"
        )
    step = _STEP_OF_SCALE * float(np.quantile(np.median(scales, axis=-1), _SMALLER))
    return min(room, max(_FRACTIONAL_BITS, math.ceil(-math.log2(step))))


def _decode(path: pathlib.Path, header: _Header, streams: list[bytes]) -> Gaussians:
    positions, alphas, colors, scales, rotations = (np.frombuffer(s, np.uint8) for s in streams)
    # Behind a zero byte, so that the sign comes with the shift.
    padded = np.pad(positions.reshape(-1, 3, 3), ((0, 0), (0, 0), (1, 0)))
    means = (padded.view("<i4")[..., 0] >> 8) * 2.0**-header.fractional_bits
    quats = _unpack_triples(rotations) if header.version == 2 else _unpack_quats(rotations)
    f_dc = (colors.reshape(-1, 3) / 255 - 0.5) / _COLOR_SLOPE
    scene = fields.from_file(
        path,
        means=means,
        quats=quats,
        scales=np.exp(scales.reshape(-1, 3) / _LOG_SCALE_STEPS + _LOG_SCALE_START),
        opacities=alphas / 255,
        colors=0.5 + ply.SH_DEGREE_0 * f_dc,
    )
    return fields.placed(path, scene, np.diag([*fields.ABOUT_X, 1.0]))


def _pack_quats(quats: np.ndarray) -> np.ndarray:
    """Words [N] of quaternions wxyz [N, 4].

    From the highest bit: 2 for which of x, y, z, w is the largest, which is left out and positive;
    then for each of the others, in order, a sign and 9 bits of its size in steps of
    sqrt(1/2) / 511.
    """
    parts = np.roll(quats, -1, axis=-1)
    parts = parts / np.linalg.norm(parts, axis=-1, keepdims=True)
    largest = np.argmax(np.abs(parts), axis=-1)[:, None]
    parts = parts * np.where(np.take_along_axis(parts, largest, axis=-1) < 0, -1, 1)
    sizes = np.rint(np.abs(parts) * _PART_STEPS).astype(np.uint32)
    bits = sizes | (parts < 0).astype(np.uint32) << 9
    kept = bits[np.arange(4) != largest].reshape(-1, 3)
    top = largest[:, 0].astype(np.uint32) << 30
    return top | kept[:, 0] << 20 | kept[:, 1] << 10 | kept[:, 2]


def _unpack_quats(rotations: np.ndarray) -> np.ndarray:
    """Quaternions wxyz [N, 4] of words, see `_pack_quats`."""
    words = rotations.view("<u4")
    bits = words[:, None] >> np.array([20, 10, 0], np.uint32)
    kept = (bits & 511) / _PART_STEPS * np.where(bits & 512, -1, 1)
    parts = np.zeros((len(words), 4))
    is_largest = np.arange(4) == (words >> 30)[:, None]
    parts[~is_largest] = kept.reshape(-1)
    parts[is_largest] = np.sqrt(np.maximum(0.0, 1.0 - np.sum(kept**2, axis=-1)))
    return np.roll(parts, 1, axis=-1)


def _unpack_triples(rotations: np.ndarray) -> np.ndarray:
    """Quaternions wxyz [N, 4] of version 2: x, y, z in bytes, w positive and left out."""
    xyz = rotations.reshape(-1, 3) / 127.5 - 1.0
    w = np.sqrt(np.maximum(0.0, 1.0 - np.sum(xyz**2, axis=-1, keepdims=True)))
    return np.concatenate([w, xyz], axis=-1)


def _read_gzip(path: pathlib.Path, data: bytes) -> tuple[_Header, list[bytes]]:
    """Header and streams of versions 2 and 3; inflates no more than the header says."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        header = _read_header(path, inflater.decompress(data, _HEADER.size), (2, 3), len(data))
        total = sum(header.sizes)
        body = inflater.decompress(inflater.unconsumed_tail, total) if total else b""
        rest = inflater.decompress(inflater.unconsumed_tail, _MAX_EXTENSION_BYTES)
    except zlib.error as error:
        raise ValueError(f"{path}: its gzip stream is damaged ({error})") from error
    if len(body) < total:
        raise ValueError(
            f"{path}: {header.count} Gaussians of version {header.version} take {total} bytes, but "
            f"only {len(body)} follow the header; the file is cut short"
        )
    if not inflater.eof:
        what = "goes on behind its Gaussians" if len(rest) else "ends without its checksum"
        raise ValueError(f"{path}: the gzip stream {what}; the file is damaged")
    if header.flags & _EXTENDED:
        _check_extensions(path, rest)
    elif rest:
        raise ValueError(
            f"{path}: {len(rest)} bytes follow the {header.count} Gaussians that the header "
            "promises; the file is damaged"
        )
    ends = np.cumsum(header.sizes).tolist()
    return header, [body[end - size : end] for end, size in zip(ends, header.sizes, strict=True)]


def _read_zstd(path: pathlib.Path, data: bytes) -> tuple[_Header, list[bytes]]:
    """Header and streams of version 4; inflates no more than the header says."""
    header = _read_header(path, data[: _HEADER.size], (4,), len(data))
    plain = _HEADER.size + _TABLE_START.size
    if len(data) < plain:
        raise ValueError(f"{path}: ends inside its header; the file is cut short")
    (start,) = _TABLE_START.unpack_from(data, _HEADER.size)
    used = [size for size in header.sizes if size]
    end = start + _TABLE_ENTRY.size * len(used)
    if header.num_streams != len(used) or not plain <= start <= end <= len(data):
        raise ValueError(
            f"{path}: expected a table of {len(used)} streams behind byte {plain}, found "
            f"{header.num_streams} at {start} of {len(data)} bytes; the file is damaged"
        )
    if header.flags & _EXTENDED:
        _check_extensions(path, data[plain:start])
    zstandard = _zstandard(path)
    streams, place = [], end
    for i, size in enumerate(used):
        packed, unpacked = _TABLE_ENTRY.unpack_from(data, start + _TABLE_ENTRY.size * i)
        if unpacked != size or packed > len(data) - place:
            raise ValueError(
                f"{path}: stream {i} should hold {size} bytes in the {len(data) - place} that are "
                f"left, the table says {unpacked} in {packed}; the file is damaged or cut short"
            )
        reader = zstandard.ZstdDecompressor().stream_reader(data[place : place + packed])
        try:
            stream = reader.read(size + 1)  # one more, to see that it ends
        except zstandard.ZstdError as error:
            raise ValueError(f"{path}: its zstd stream {i} is damaged ({error})") from error
        if len(stream) != size:
            raise ValueError(
                f"{path}: stream {i} does not hold {size} bytes, as its table says; it is damaged"
            )
        streams.append(stream)
        place += packed
    if place < len(data):
        raise ValueError(f"{path}: {len(data) - place} bytes follow its streams; it is damaged")
    return header, streams if header.sizes[-1] else [*streams, b""]


def _read_header(
    path: pathlib.Path, data: bytes, versions: tuple[int, ...], file_bytes: int
) -> _Header:
    """The first 16 bytes, checked."""
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError(f"{path}: not an .spz file (no header 'NGSP')")
    header = _Header(*_HEADER.unpack(data)[1:])
    if header.version not in versions:
        raise ValueError(
            f"{path}: .spz of version {header.version} inside {'zstd' if 4 in versions else 'gzip'}"
            ", expected 2 or 3 inside gzip, or 4; convert it with a newer or older program"
        )
    if header.degree >= len(_HARMONICS) or header.fractional_bits > _POSITION_BITS:
        raise ValueError(
            f"{path}: spherical harmonics of degree {header.degree} and {header.fractional_bits} "
            f"fractional bits, expected at most {len(_HARMONICS) - 1} and {_POSITION_BITS}; the "
            "file is damaged"
        )
    if header.flags & _LEVELS:
        raise ValueError(
            f"{path}: holds a tree of levels of detail, of which only the leaves are the scene; "
            "export it without levels"
        )
    if sum(header.sizes) > _MAX_RATIO * file_bytes:
        raise ValueError(
            f"{path}: the header promises {header.count} Gaussians, far more than {file_bytes} "
            "bytes can hold; the file is damaged"
        )
    return header


def _check_extensions(path: pathlib.Path, data: bytes) -> None:
    """Refuses what changes the meaning of the streams, and says what is left out."""
    place = 0
    while place < len(data):
        if len(data) - place < _EXTENSION.size:
            raise ValueError(f"{path}: its last extension is cut short; the file is damaged")
        kind, length = _EXTENSION.unpack_from(data, place)
        payload = data[place + _EXTENSION.size :][:length]
        if len(payload) < length:
            raise ValueError(f"{path}: its extension {kind:#x} is cut short; the file is damaged")
        place += _EXTENSION.size + length
        if kind == _AXES_EXTENSION and payload != struct.pack("<I", _RIGHT_UP_BACK):
            raise ValueError(
                f"{path}: its axes are not right-up-back (SPZ_ADOBE_coordinate_system "
                f"{payload.hex()}); save it without that extension"
            )
        if kind not in (_AXES_EXTENSION, _ORBIT_EXTENSION):
            warnings.warn(f"{path}: the unknown extension {kind:#x} is left out", stacklevel=4)


def _zstandard(path: str | pathlib.Path) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ValueError(
            f"{path}: version 4 of .spz needs the package zstandard; pip install 'lgs_jax[spz]'"
        ) from error
    return zstandard
