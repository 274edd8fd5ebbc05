"""Compressed .ply files: an independent writer, word by word, read back within their steps."""

import numpy as np
import pytest
import splat_scenes

from lgs_jax.inference.export import ply

COUNT = 300  # more than one chunk
BOUNDS = [f"{end}_{name}" for end in ("min", "max") for name in "xyz"]
BOUNDS += [f"{end}_scale_{name}" for end in ("min", "max") for name in "xyz"]
COLOR_BOUNDS = [f"{end}_{name}" for end in ("min", "max") for name in "rgb"]


def pack(shares, bits):
    """Words of numbers in [0, 1]: a plain loop over rows and parts."""
    words = []
    for row in shares:
        word = 0
        for share, count in zip(row, bits, strict=True):
            word = (word << count) | round(float(share) * (2**count - 1))
        words.append(word)
    return words


def pack_quat(quat):
    quat = quat / np.linalg.norm(quat)
    largest = int(np.argmax(np.abs(quat)))
    quat = quat if quat[largest] > 0 else -quat
    word = largest
    for part in range(4):
        if part != largest:
            word = (word << 10) | round((quat[part] / np.sqrt(2) + 0.5) * 1023)
    return word


def write(path, *, colors=True, cut=0):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(COUNT, 3))
    log_scales = rng.normal(-3, 1, size=(COUNT, 3))
    quats = rng.normal(size=(COUNT, 4))
    rgb = rng.uniform(-0.2, 1.2, size=(COUNT, 3)) if colors else rng.uniform(size=(COUNT, 3))
    opacities = rng.uniform(size=COUNT)
    names = BOUNDS + (COLOR_BOUNDS if colors else [])
    chunks, vertices = [], []
    for start in range(0, COUNT, 256):
        rows = slice(start, start + 256)
        tables = [means[rows], log_scales[rows]] + ([rgb[rows]] if colors else [])
        bounds = [value for t in tables for value in (*t.min(0), *t.max(0))]
        chunks.append(bounds)
        shares = [(t - t.min(0)) / np.ptp(t, axis=0) for t in tables]
        color = np.column_stack([shares[2] if colors else rgb[rows], opacities[rows]])
        vertices += zip(
            pack(shares[0], (11, 10, 11)),
            map(pack_quat, quats[rows]),
            pack(shares[1], (11, 10, 11)),
            pack(color, (8, 8, 8, 8)),
            strict=True,
        )
    words = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
    header = ["ply", "format binary_little_endian 1.0", f"element chunk {len(chunks)}"]
    header += [f"property float {name}" for name in names] + [f"element vertex {COUNT}"]
    header += [f"property uint {word}" for word in words] + ["end_header", ""]
    body = np.array(chunks, "<f4").tobytes() + np.array(vertices, "<u4").tobytes()
    path.write_bytes("\n".join(header).encode() + body[: len(body) - cut])
    return means, log_scales, quats, rgb, opacities


@pytest.mark.parametrize("colors", [True, False])
def test_values_are_within_a_step(tmp_path, colors):
    means, log_scales, quats, rgb, opacities = write(tmp_path / "a.ply", colors=colors)
    read = ply.load_ply(tmp_path / "a.ply").check()
    np.testing.assert_allclose(read.means, means, atol=0.5 * np.ptp(means, axis=0).max() / 1023)
    np.testing.assert_allclose(
        np.log(read.scales), log_scales, atol=0.51 * np.ptp(log_scales, axis=0).max() / 1023
    )
    unit = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    agreement = np.abs(np.sum(read.quats * unit, axis=-1))
    assert agreement.min() > 1 - 4e-6
    np.testing.assert_allclose(read.opacities, opacities, atol=0.51 / 255)
    np.testing.assert_allclose(read.colors, rgb, atol=0.51 * (1.4 if colors else 1.0) / 255)


def test_files_of_another_writer_are_read(tmp_path):
    """Its own reader says what is in them."""
    gsply = pytest.importorskip("gsply", reason="pip install gsply")
    plain = ply.save_ply(tmp_path / "a.ply", splat_scenes.make(300))
    path = tmp_path / "b.compressed.ply"
    gsply.plywrite(path, gsply.plyread(str(plain)), compressed=True)
    theirs, ours = gsply.plyread(str(path)), ply.load_ply(path).check()
    np.testing.assert_allclose(ours.means, theirs.means, atol=1e-5)
    np.testing.assert_allclose(np.log(ours.scales), theirs.scales, atol=1e-5)
    assert splat_scenes.angles(ours.quats, theirs.quats).max() < 1e-4
    np.testing.assert_allclose(
        ours.opacities, 1 / (1 + np.exp(-theirs.opacities.reshape(-1))), atol=1e-5
    )
    np.testing.assert_allclose(ours.colors, 0.5 + ply.SH_DEGREE_0 * theirs.sh0, atol=1e-5)


def test_a_file_that_is_cut_short(tmp_path):
    write(tmp_path / "a.ply", cut=5)
    with pytest.raises(ValueError, match=r"promises 300 vertices of 16 bytes, but only 4795 bytes"):
        ply.load_ply(tmp_path / "a.ply")


def test_chunks_that_do_not_fit(tmp_path):
    write(tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(b"element chunk 2", b"element chunk 1"))
    with pytest.raises(ValueError, match=r"expected one chunk for every 256 vertices, found"):
        ply.load_ply(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("bound", "value", "fault"),
    [
        ("min_x", np.nan, "positions or scales that are NaN"),
        ("max_y", np.inf, "positions or scales that are NaN"),
        ("max_scale_z", 3000.0, "positions or scales that are NaN"),
        ("max_scale_z", -3e38, "scales that are not positive"),
        ("max_g", np.inf, "colours that are NaN"),
    ],
)
def test_values_that_no_gaussian_has_are_refused(tmp_path, bound, value, fault):
    write(tmp_path / "a.ply")
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    place = 4 * (BOUNDS + COLOR_BOUNDS).index(bound)
    body = body[:place] + np.float32(value).tobytes() + body[place + 4 :]
    (tmp_path / "a.ply").write_bytes(head + b"end_header\n" + body)
    with pytest.raises(ValueError, match=rf"a\.ply: \d+ of 300 Gaussians have {fault}"):
        ply.load_ply(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b"property float min_x", b"property float low_x", "min_x"),
        (b"property uint packed_scale", b"property float packed_scale", "packed_scale"),
        (b"element chunk", b"element chuck", "min_x"),
    ],
)
def test_headers_of_other_columns_are_refused(tmp_path, old, new, named):
    write(tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(old, new))
    with pytest.raises(ValueError, match=rf"a\.ply: expected the bounds of chunks .* {named}"):
        ply.load_ply(tmp_path / "a.ply")


def test_a_file_without_gaussians_is_refused(tmp_path):
    write(tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    empty = data.replace(b"chunk 2\n", b"chunk 0\n").replace(b"vertex 300\n", b"vertex 0\n")
    (tmp_path / "a.ply").write_bytes(empty)
    with pytest.raises(ValueError, match=r"a\.ply holds no Gaussians"):
        ply.load_ply(tmp_path / "a.ply")


def test_a_header_that_promises_more_than_memory(tmp_path):
    write(tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    huge = data.replace(b"element chunk 2", b"element chunk 99999999999999")
    (tmp_path / "a.ply").write_bytes(huge)
    with pytest.raises(ValueError, match=r"promises 99999999999999 chunks"):
        ply.load_ply(tmp_path / "a.ply")
