"""Damaged files of every format: a clear error or scenes that pass all checks, nothing else.

100 mutations of every file; for more, LGS_JAX_FUZZ=10000 python -m pytest tests/data/test_fuzz.py.
"""

import gzip
import os
import struct
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data import archives, images, opening, packed, prepare, scan
from lgs_jax.data.report import DataError
from lgs_jax.data.sources import packed as packed_source
from lgs_jax.inference.export import formats as splat_formats

EXAMPLES = int(os.environ.get("LGS_JAX_FUZZ", "100"))
FUZZ = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)

# Values that lengths, counts and floats choke on.
_EVIL = [
    b"\xff" * 8,
    b"\x00" * 8,
    struct.pack("<Q", 2**63 - 1),
    struct.pack("<Q", 2**40),
    struct.pack("<I", 2**31),
    struct.pack("<d", float("nan")),
    struct.pack("<d", 1e308),
    struct.pack("<f", float("inf")),
    b"9" * 30,
    b"-1e999",
    b"null",
    b"\n\n",
    b'"',
]
_EDIT = st.one_of(
    st.tuples(st.just("set"), st.floats(0, 1), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 40)),
    st.tuples(st.just("write"), st.floats(0, 1), st.integers(0, len(_EVIL) - 1)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.integers(0, len(_EVIL) - 1)),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 200)),
)
EDITS = st.lists(_EDIT, min_size=1, max_size=6)


def mutated(data: bytes, edits) -> bytes:
    changed = bytearray(data)
    for kind, place, value in edits:
        at = int(place * len(changed))
        if kind == "set" and at < len(changed):
            changed[at] = value
        elif kind == "cut":
            del changed[at:]
        elif kind == "drop":
            del changed[at : at + value]
        elif kind == "write":
            changed[at : at + len(_EVIL[value])] = _EVIL[value]
        elif kind == "insert":
            changed[at:at] = _EVIL[value]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + value]
    return bytes(changed)


CASES = {
    "colmap cameras.bin": (
        "colmap", lambda d, f, s: f.write_colmap_scene(d, s), "sparse/0/cameras.bin"
    ),
    "colmap images.bin": (
        "colmap", lambda d, f, s: f.write_colmap_scene(d, s), "sparse/0/images.bin"
    ),
    "colmap cameras.txt": (
        "colmap", lambda d, f, s: f.write_colmap_scene(d, s, binary=False), "sparse/0/cameras.txt"
    ),
    "colmap images.txt": (
        "colmap", lambda d, f, s: f.write_colmap_scene(d, s, binary=False), "sparse/0/images.txt"
    ),
    "mvimgnet zip": (
        "mvimgnet",
        lambda d, f, s: f.write_mvimgnet_zip(d, s, zipfile.ZIP_DEFLATED),
        "part.zip",
    ),
    "llff": ("llff", lambda d, f, s: f.write_llff(d, s), "poses_bounds.npy"),
    "transforms": ("transforms", lambda d, f, s: f.write_transforms(d, s), "transforms.json"),
    "realestate10k": (
        "realestate10k", lambda d, f, s: f.write_realestate10k(d, s, "clip"), "train/clip.txt"
    ),
    "png": ("transforms", lambda d, f, s: f.write_transforms(d, s), "images/000.png"),
    "jpeg": (
        "transforms", lambda d, f, s: f.write_transforms(d, s, suffix=".jpg"), "images/000.jpg"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def scene(formats):
    return formats.make_dot_scene(num_frames=4)


def check_scene(example):
    """What every reader promises of the scenes that it serves."""
    example.check()
    assert np.isfinite(example.world_from_cam).all()
    turn = example.world_from_cam[:, :3, :3]
    assert np.abs(np.swapaxes(turn, 1, 2) @ turn - np.eye(3)).max() < 1e-6
    assert (example.intrinsics[:, :2] > 0).all()


def read_all(source, root):
    """Opens a folder and reads all of it, pictures included; what was found wrong."""
    for opened in (archives._open, archives._names, packed._reader):
        opened.cache_clear()  # they keep files open
    reader = opening.make_reader(source, str(root))
    findings = []
    for key in reader.keys:
        examined = scan.examine(reader, key, scan.ScanOptions())
        findings += examined.findings
        if examined.example is None:
            assert examined.findings
            continue
        kept = len(examined.example)
        assert kept + len([f for f in examined.findings if f.frame]) == examined.found
        check_scene(examined.example)
        for i in range(kept):
            picture = np.asarray(examined.example.images[i])
            assert picture.shape[:2] == tuple(examined.example.sizes[i])
    return [str(finding) for finding in findings]


def read_packed(folder):
    """Opens a packed folder and reads all of it."""
    packed._reader.cache_clear()  # it keeps files open
    found = packed_source.Folder(folder)
    for example in packed_source.PackedSource(found, scan.ScanOptions(), found.keys):
        check_scene(example)
        for i in range(len(example)):
            assert np.asarray(example.images[i]).shape == (*example.sizes[i], 3)
    return []


def read_splats(path):
    """Reads a file of Gaussians, and checks them."""
    scene = splat_formats.load(path).check()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert np.isfinite(getattr(scene, name)).all()
    assert (np.asarray(scene.scales) > 0).all()
    assert ((np.asarray(scene.opacities) >= 0) & (np.asarray(scene.opacities) <= 1)).all()
    return []


def fuzz(path, read, error_type=DataError, good=None, wrap=bytes):
    """Reads mutations of a file, or `wrap` of those of `good`; anything but the error fails."""
    good = path.read_bytes() if good is None else good
    assert read() == []
    refused = []

    @FUZZ
    @hypothesis.given(EDITS)
    def run(edits):
        path.write_bytes(wrap(mutated(good, edits)))
        try:
            findings = read()
        except error_type as error:
            findings = [str(error)]
        refused.extend(findings)

    run()
    assert refused
    assert min(map(len, refused)) > 20


# NumPy's note that a header looks as if Python 2 had written it.
@pytest.mark.filterwarnings("ignore:Reading .* required additional header parsing")
@pytest.mark.parametrize("case", CASES)
def test_damaged_files(formats, scene, tmp_path_factory, case):
    source, write, name = CASES[case]
    root = tmp_path_factory.mktemp("fuzz")
    write(root, formats, scene)
    fuzz(root / name, lambda: read_all(source, root))


@pytest.mark.parametrize("name", ["shard_00000.array_record", "shard_00000.json", "manifest.json"])
def test_damaged_packed_data(formats, scene, tmp_path_factory, name):
    root = tmp_path_factory.mktemp("fuzz")
    formats.write_transforms(root / "raw", scene)
    options = prepare.Options()
    reader = opening.make_reader("transforms", str(root / "raw"))
    supplier = prepare.FromReader(reader, options)
    prepare.prepare(root / "packed", supplier, options, num_workers=0)
    fuzz(root / "packed" / name, lambda: read_packed(root / "packed"))


# Mutations may set flags and counts that readers warn of.
@pytest.mark.filterwarnings("ignore:.*(left out|antialiased):UserWarning")
@pytest.mark.parametrize(
    "name", ["a.ply", "a.splat", "a.spz", "inside a.spz", "a.spz of version 4", "a.glb"]
)
def test_damaged_splat_files(tmp_path_factory, name):
    if name.endswith("4"):
        pytest.importorskip("zstandard", reason="zstandard is not installed")
    path = tmp_path_factory.mktemp("fuzz") / name.removeprefix("inside ").split()[0]
    scene = Gaussians(
        means=np.eye(3, dtype=np.float32),
        quats=np.ones((3, 4), np.float32),
        scales=np.full((3, 3), 0.1, np.float32),
        opacities=np.full(3, 0.5, np.float32),
        colors=np.full((3, 3), 0.2, np.float32),
    )
    splat_formats.save(path, scene, **({"version": 4} if name.endswith("4") else {}))
    inside = {}
    if name.startswith("inside"):  # past the checksum, which finds nearly all other damage
        inside = {"good": gzip.decompress(path.read_bytes()), "wrap": gzip.compress}
    fuzz(path, lambda: read_splats(path), ValueError, **inside)


@FUZZ
@hypothesis.given(st.binary(max_size=400))
def test_arbitrary_bytes_are_no_picture(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError):
        images.stored_size(str(path), images.ReadOptions())
