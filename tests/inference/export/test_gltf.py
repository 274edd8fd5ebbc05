"""The .glb layout as the extension asks for it, placements by nodes, and what is refused."""

import json
import struct

import numpy as np
import pytest
import splat_scenes

from lgs_jax.core import gaussians
from lgs_jax.inference.export import gltf, ply, verify

KHR = "KHR_gaussian_splatting"


def unpack(path):
    """JSON and buffer, by the letter of the specification."""
    data = path.read_bytes()
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    length, kind = struct.unpack("<I4s", data[12:20])
    assert (kind, length % 4) == (b"JSON", 0)
    document, rest = json.loads(data[20 : 20 + length]), data[20 + length :]
    size, kind = struct.unpack("<I4s", rest[:8])
    assert (kind, size % 4, len(rest)) == (b"BIN\0", 0, 8 + size)
    return document, rest[8:]


def pack(path, document, body):
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def saved(folder, count=20):
    scene = splat_scenes.make(count)
    path = gltf.save_glb(folder / "a.glb", scene)
    return scene, path, *unpack(path)


def test_round_trip_is_exact_to_float_rounding(tmp_path):
    scene, path, *_ = saved(tmp_path)
    read = gltf.load_glb(path).check()
    for name in ("means", "scales", "opacities"):
        np.testing.assert_array_equal(getattr(read, name), getattr(scene, name))
    np.testing.assert_allclose(read.colors, scene.colors, atol=2e-7)
    assert splat_scenes.angles(read.quats, scene.quats).max() < 1e-6
    again = gltf.load_glb(gltf.save_glb(tmp_path / "b.glb", read))
    assert verify.differing_fields(read, again) == []


def test_the_extension_finds_what_it_asks_for(tmp_path):
    scene, _, document, body = saved(tmp_path)
    assert document["extensionsUsed"] == [KHR]
    (primitive,) = document["meshes"][document["nodes"][0]["mesh"]]["primitives"]
    assert primitive["mode"] == 0
    described = primitive["extensions"][KHR]
    assert (described["kernel"], described["colorSpace"]) == ("ellipse", "srgb_rec709_display")

    def values(name):
        accessor = document["accessors"][primitive["attributes"][name]]
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        data = body[view["byteOffset"] :][: view["byteLength"]]
        kind = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        return np.frombuffer(data, kind).reshape(accessor["count"], -1), accessor

    position, accessor = values("POSITION")
    np.testing.assert_array_equal(position, scene.means * [-1, -1, 1])  # left-up-front
    assert np.float32(accessor["max"]).tolist() == position.max(axis=0).tolist()
    turned, _ = values(f"{KHR}:ROTATION")
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), 1, atol=1e-6)
    # What a viewer computes: covariances in the axes of the file.
    theirs = gaussians.Gaussians(
        position, np.roll(turned, 1, axis=-1), values(f"{KHR}:SCALE")[0], scene.opacities,
        scene.colors,
    )  # fmt: skip
    turn = np.diag([-1.0, -1.0, 1.0])
    expected = turn @ np.asarray(gaussians.covariances(scene)) @ turn
    np.testing.assert_allclose(gaussians.covariances(theirs), expected, rtol=1e-4, atol=1e-5)
    f_dc, _ = values(f"{KHR}:SH_DEGREE_0_COEF_0")
    np.testing.assert_allclose(0.5 + ply.SH_DEGREE_0 * f_dc, scene.colors, atol=2e-7)
    fallback, accessor = values("COLOR_0")
    assert accessor["normalized"]
    row = int(np.argmin(np.abs(scene.colors[:, 0] - 0.5)))
    linear = ((scene.colors[row, 0] + 0.055) / 1.055) ** 2.4
    assert abs(fallback[row, 0] - 255 * linear) <= 0.5
    assert abs(fallback[row, 3] - 255 * scene.opacities[row]) <= 0.5


def test_nodes_place_the_splats(tmp_path):
    scene, path, document, body = saved(tmp_path)
    half = float(np.sqrt(0.5))
    document["nodes"] = [
        {"children": [1], "translation": [1, 2, 3], "scale": [2, 2, 2]},
        {"mesh": 0, "rotation": [0, half, 0, half]},
        {"matrix": np.diag([3.0, 3, 3, 1]).ravel().tolist(), "mesh": 0},
        {"mesh": 0},  # which the scene does not show
    ]
    document["scenes"] = [{"nodes": [0, 2]}]
    read = gltf.load_glb(pack(path, document, body))
    assert read.num_gaussians == 40
    # Quarter turn about y in the file (up), so about -y in the scene: x ahead, z to -x.
    quarter = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    flip = np.diag([-1.0, -1.0, 1.0])
    turn = flip @ quarter @ flip
    expected = 2 * scene.means @ turn.T + flip @ [1, 2, 3]
    np.testing.assert_allclose(read.means[20:], expected, atol=1e-4)
    spread = 4 * turn @ np.asarray(gaussians.covariances(scene)) @ turn.T
    found = np.asarray(gaussians.covariances(read))[20:]
    np.testing.assert_allclose(found, spread, atol=1e-5 * np.abs(spread).max())
    np.testing.assert_allclose(read.means[:20], 3 * scene.means, rtol=1e-6)


def test_numbers_of_fewer_bytes_are_read(tmp_path):
    scene, path, document, body = saved(tmp_path)
    index = document["meshes"][0]["primitives"][0]["attributes"][f"{KHR}:OPACITY"]
    view = document["bufferViews"][document["accessors"][index]["bufferView"]]
    narrow = np.rint(scene.opacities * 65535).astype("<u2")
    start = view["byteOffset"]
    rows = np.zeros((20, 2), "<u2")
    rows[:, 0] = narrow
    body = body[:start] + rows.tobytes() + body[start + view["byteLength"] :]
    view["byteStride"] = 4
    document["accessors"][index] |= {"componentType": 5123, "normalized": True}
    read = gltf.load_glb(pack(path, document, body))
    np.testing.assert_allclose(read.opacities, scene.opacities, atol=0.6 / 65535)


def test_view_dependent_colours_and_flat_splats(tmp_path):
    scene, path, document, body = saved(tmp_path)
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    for i in range(3):
        attributes[f"{KHR}:SH_DEGREE_1_COEF_{i}"] = attributes[f"{KHR}:SH_DEGREE_0_COEF_0"]
    view = document["bufferViews"][attributes[f"{KHR}:SCALE"]]
    body = bytearray(body)
    body[view["byteOffset"] : view["byteOffset"] + 4] = bytes(4)
    with pytest.warns(UserWarning, match="9 view-dependent colour coefficients"):
        read = gltf.load_glb(pack(path, document, bytes(body)))
    np.testing.assert_allclose(read.colors, scene.colors, atol=2e-7)
    assert 0 < read.scales[0, 0] < 1e-9


def changed(*keys, to):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return change


SPLATS = ("meshes", 0, "primitives", 0, "extensions")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(*SPLATS, to={}), "nothing in its scene has KHR_gaussian_splatting"),
        (changed(*SPLATS, KHR, "kernel", to="box"), r"colour space \(0, 'box'"),
        (changed(*SPLATS, KHR, "colorSpace", to="lin_rec709_display"), "'lin_rec709_display'"),
        (changed("extensionsRequired", to=["KHR_spz"]), "needs KHR_spz, which cannot be read"),
        (changed("accessors", 3, "count", to=19), "SCALE has 19 rows of 3 numbers, expected 20"),
        (changed("accessors", 0, "count", to=10**15), "asks for 1000000000000000 rows"),
        (changed("accessors", 0, "count", to="20"), "breaks the rules of glTF"),
        (changed("accessors", 0, "bufferView", to=99), "bufferViews have no 99"),
        (changed("accessors", 0, "sparse", to={}), "sparse or empty"),
        (changed("bufferViews", 0, "byteStride", to=0), "rows every 0 bytes"),
        (changed("buffers", 0, "uri", to="/etc/passwd"), "its data lie outside of the file"),
        (changed("nodes", 0, "children", to=[0]), "node 0 hangs on two others"),
        (changed("nodes", 0, "scale", to=[1, 2, 1]), "expected a rotation, one positive scale"),
        (changed("nodes", 0, "scale", to=[1, 1, -1]), "expected a rotation, one positive scale"),
        (changed("nodes", 0, "matrix", to=[1, 2]), "expected 16 numbers"),
    ],
)
def test_broken_scenes_are_named_with_their_fault(tmp_path, change, message):
    _, path, document, body = saved(tmp_path)
    change(document)
    with pytest.raises(ValueError, match=f"a.glb.*{message}"):
        gltf.load_glb(pack(path, document, body))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: b"glTX" + d[4:], "not a .glb file"),
        (lambda d: d[:4] + b"\1" + d[5:], "found glTF 1"),
        (lambda d: d[:-1], "the file is cut short"),
        (lambda d: d[:12] + b"\xff" * 4 + d[16:], "has 4294967295 bytes, but"),
        (lambda d: d[:20] + b"[" + d[21:], "its JSON chunk cannot be read"),
    ],
)
def test_broken_files_are_named_with_their_fault(tmp_path, change, message):
    _, path, *_ = saved(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"a.glb: .*{message}"):
        gltf.load_glb(path)
