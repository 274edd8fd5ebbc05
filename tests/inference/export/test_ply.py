"""The .ply layout, read back by us and by an independent reader."""

import dataclasses
import warnings

import jax.numpy as jnp
import numpy as np
import plyfile
import pytest

from lgs_jax import render
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import ply

LAYOUT = (
    "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
)
FIELDS = ("means", "quats", "scales", "opacities", "colors")


def random_scene(count: int = 50) -> Gaussians:
    rng = np.random.default_rng(0)
    return Gaussians(
        means=rng.normal(size=(count, 3)).astype(np.float32) * 10,
        quats=rng.normal(size=(count, 4)).astype(np.float32),
        scales=np.exp(rng.normal(-3, 2, size=(count, 3))).astype(np.float32),
        opacities=rng.uniform(0.001, 0.999, size=count).astype(np.float32),
        colors=rng.uniform(-0.2, 1.3, size=(count, 3)).astype(np.float32),
    )


def unit(quats: np.ndarray) -> np.ndarray:
    return quats / np.linalg.norm(quats, axis=-1, keepdims=True)


def rewrite(path, change) -> None:
    """Applies `change(header text, body bytes)` to a file."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    head, body = change(head.decode() + "end_header\n", body)
    path.write_bytes(head.encode() + body)


def test_round_trip_is_exact_to_float_rounding(tmp_path):
    scene = random_scene()
    read = ply.load_ply(ply.save_ply(tmp_path / "scene.ply", scene)).check()
    np.testing.assert_array_equal(read.means, scene.means)
    # One rounding to float32 of each stored number; exp multiplies that of a logarithm of up to 10.
    np.testing.assert_allclose(read.quats, unit(scene.quats), atol=1e-7)
    np.testing.assert_allclose(read.scales, scene.scales, rtol=2e-6)
    np.testing.assert_allclose(read.opacities, scene.opacities, atol=3e-7)
    np.testing.assert_allclose(read.colors, scene.colors, atol=2e-7)


def test_read_scene_renders_like_the_written_one(tmp_path):
    scene = dataclasses.replace(random_scene(200), scales=np.full((200, 3), 0.3, np.float32))
    read = ply.load_ply(ply.save_ply(tmp_path / "scene.ply", scene))
    camera = Cameras(
        jnp.eye(4).at[2, 3].set(-25.0), jnp.array([30.0, 30.0, 16.0, 12.0])
    )  # the scene lies around the origin
    before, after = (render(s, camera, height=24, width=32) for s in (scene, read))
    assert float(before.alpha.mean()) > 0.1
    # A few roundings of every stored number; no pixel may cross one of the renderer's thresholds by
    # more than the least visible contribution, 1/255.
    np.testing.assert_allclose(after.rgb, before.rgb, atol=1 / 255)
    assert np.abs(np.asarray(after.rgb) - before.rgb).mean() < 1e-5


def test_second_round_trip_changes_nothing(tmp_path):
    first = ply.save_ply(tmp_path / "a.ply", random_scene())
    second = ply.save_ply(tmp_path / "b.ply", ply.load_ply(first))
    a, b = (plyfile.PlyData.read(path)["vertex"].data for path in (first, second))
    for name in a.dtype.names:
        np.testing.assert_allclose(a[name], b[name], atol=3e-5 if name == "opacity" else 2e-6)


def test_another_reader_finds_the_documented_layout(tmp_path):
    scene = random_scene()
    data = plyfile.PlyData.read(ply.save_ply(tmp_path / "scene.ply", scene))
    assert (data.text, data.byte_order) == (False, "<")
    assert [element.name for element in data.elements] == ["vertex"]
    vertex = data["vertex"]
    assert [(p.name, p.val_dtype) for p in vertex.properties] == [
        (name, "f4") for name in LAYOUT.split()
    ]
    np.testing.assert_array_equal(vertex["y"], scene.means[:, 1])
    np.testing.assert_array_equal(vertex["nz"], 0.0)
    # What a viewer computes: rgb = SH_C0 f_dc + 0.5, alpha = sigmoid, s = exp, q = wxyz.
    np.testing.assert_allclose(
        0.28209479177387814 * vertex["f_dc_2"] + 0.5, scene.colors[:, 2], atol=2e-7
    )
    sigmoid = 1 / (1 + np.exp(-vertex["opacity"].astype(np.float64)))
    np.testing.assert_allclose(sigmoid, scene.opacities, atol=3e-7)
    np.testing.assert_allclose(np.exp(vertex["scale_1"]), scene.scales[:, 1], rtol=2e-6)
    np.testing.assert_allclose(vertex["rot_0"], unit(scene.quats)[:, 0], atol=1e-7)


def test_files_of_another_writer_are_read(tmp_path):
    """Other order, number types, extra properties, a comment and a second element."""
    rng = np.random.default_rng(1)
    names = "rot_3 rot_2 rot_1 rot_0 opacity f_dc_2 f_dc_1 f_dc_0 z y x scale_2 scale_1 scale_0 age"
    vertices = np.zeros(6, [(name, "f8" if name == "x" else "f4") for name in names.split()])
    for name in vertices.dtype.names:
        vertices[name] = rng.normal(size=6)
    elements = [
        plyfile.PlyElement.describe(vertices, "vertex"),
        plyfile.PlyElement.describe(np.zeros(3, [("a", "i4")]), "other"),
    ]
    path = tmp_path / "other.ply"
    plyfile.PlyData(elements, byte_order="<", comments=["element vertex 9"]).write(path)
    read = ply.load_ply(path)
    np.testing.assert_allclose(read.means[:, 0], vertices["x"], rtol=1e-6)
    rotations = np.stack([vertices[f"rot_{i}"] for i in range(4)], axis=-1)
    np.testing.assert_allclose(read.quats, unit(rotations), atol=1e-7)
    np.testing.assert_allclose(read.scales[:, 2], np.exp(vertices["scale_2"]), rtol=1e-6)
    np.testing.assert_allclose(read.opacities, 1 / (1 + np.exp(-vertices["opacity"])), rtol=1e-6)


@pytest.mark.parametrize(
    ("property", "value", "fault"),
    [
        ("x", np.nan, "positions or scales that are NaN or infinite"),
        ("scale_0", 200.0, "positions or scales that are NaN or infinite"),  # not as float32
        ("scale_0", 2000.0, "positions or scales that are NaN or infinite"),
        ("scale_0", -np.inf, "scales that are not positive"),
        ("rot", 0.0, "quaternions that are zero"),
        ("opacity", np.nan, r"opacities that are not in \[0, 1\]"),
        ("f_dc_1", np.inf, "colours that are NaN or infinite"),
    ],
)
def test_values_that_no_gaussian_has_are_refused(tmp_path, property, value, fault):
    path = ply.save_ply(tmp_path / "scene.ply", random_scene(4))
    vertices = plyfile.PlyData.read(path)["vertex"].data.copy()
    for name in vertices.dtype.names:
        if name.startswith(property):
            vertices[name][2] = value
    element = plyfile.PlyElement.describe(vertices, "vertex")
    plyfile.PlyData([element], byte_order="<").write(path)
    with pytest.raises(ValueError, match=f"1 of 4 Gaussians have {fault}, the first is number 2"):
        ply.load_ply(path)


def test_a_file_without_gaussians_is_refused(tmp_path):
    path = ply.save_ply(tmp_path / "scene.ply", random_scene(4))
    rewrite(path, lambda h, b: (h.replace("vertex 4", "vertex 0"), b""))
    with pytest.raises(ValueError, match=r"scene\.ply holds no Gaussians"):
        ply.load_ply(path)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_view_dependent_colours_are_left_out_with_a_warning(tmp_path, value):
    scene = random_scene(3)
    path = ply.save_ply(tmp_path / "scene.ply", scene)
    vertices = plyfile.PlyData.read(path)["vertex"].data
    wide = np.zeros(3, vertices.dtype.descr + [(f"f_rest_{i}", "f4") for i in range(9)])
    for name in vertices.dtype.names:
        wide[name] = vertices[name]
    wide["f_rest_4"] = value
    element = plyfile.PlyElement.describe(wide, "vertex")
    plyfile.PlyData([element], byte_order="<").write(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = ply.load_ply(path)
    assert [str(w.message) for w in caught if "9 view-dependent" in str(w.message)] == [
        str(w.message) for w in caught
    ]
    assert bool(caught) == (value != 0)  # zeros leave nothing out
    np.testing.assert_allclose(read.colors, scene.colors, atol=2e-7)


def test_opaque_and_invisible_gaussians_stay_finite(tmp_path):
    scene = dataclasses.replace(random_scene(2), opacities=np.array([0.0, 1.0], np.float32))
    path = ply.save_ply(tmp_path / "scene.ply", scene)
    assert np.isfinite(plyfile.PlyData.read(path)["vertex"]["opacity"]).all()
    np.testing.assert_allclose(ply.load_ply(path).opacities, [0, 1], atol=1.1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("means", np.nan, "1 values of means are NaN"),
        ("scales", 0.0, "1 scales are not positive"),
        ("opacities", 1.5, r"1 opacities are outside \[0, 1\]"),
    ],
)
def test_values_without_a_form_are_refused(tmp_path, field, value, message):
    scene = random_scene(4)
    values = getattr(scene, field).copy()
    values[(2, *[0] * (values.ndim - 1))] = value
    with pytest.raises(ValueError, match=f"scene.ply: {message}"):
        ply.save_ply(tmp_path / "scene.ply", dataclasses.replace(scene, **{field: values}))
    assert not list(tmp_path.iterdir())


def test_zero_quaternions_and_other_shapes_are_refused(tmp_path):
    scene = random_scene(4)
    quats = scene.quats.copy()
    quats[1] = 0
    with pytest.raises(ValueError, match="1 quaternions are zero"):
        ply.save_ply(tmp_path / "a.ply", dataclasses.replace(scene, quats=quats))
    batched = Gaussians(**{name: getattr(scene, name)[None] for name in FIELDS})
    with pytest.raises(ValueError, match=r"one RGB scene, got leading dimensions \(1,\)"):
        ply.save_ply(tmp_path / "a.ply", batched)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, b: ("solid " + h, b), "not a .ply file"),
        (lambda h, b: (h.replace("end_header\n", ""), b""), "not a .ply file"),
        (lambda h, b: (h.replace("binary_little", "binary_big"), b), "binary_big_endian 1.0"),
        (lambda h, b: (h, b[:-1]), "3 vertices of 68 bytes, but only 203 bytes follow"),
        (lambda h, b: (h.replace("f_dc_1", "green"), b), "lack f_dc_1; this is not"),
        (lambda h, b: (h.replace("float nx", "list uchar int nx"), b), "cannot read the vertex"),
        (lambda h, b: (h.replace("vertex", "chunk"), b), "expected 'element vertex' first"),
    ],
)
def test_broken_files_are_named_with_their_fault(tmp_path, change, message):
    path = ply.save_ply(tmp_path / "scene.ply", random_scene(3))
    rewrite(path, change)
    with pytest.raises(ValueError, match=f"scene.ply: .*{message}"):
        ply.load_ply(path)
