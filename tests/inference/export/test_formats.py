"""The table of formats: by suffix, with the options of each, and errors that list what there is."""

import pytest
import splat_scenes

from lgs_jax.inference import splat_views
from lgs_jax.inference.export import formats, verify


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz", ".glb", ".GLB"])
def test_every_suffix_writes_and_reads(tmp_path, suffix):
    scene = splat_scenes.make(20)
    path = formats.save(tmp_path / f"a{suffix}", scene)
    read = formats.load(str(path)).check()
    assert read.num_gaussians == 20
    assert bool(verify.differing_fields(scene, read)) != formats.of(path).is_lossless


def test_unknown_suffixes_and_options(tmp_path):
    scene = splat_scenes.make(20)
    for name in ("a.obj", "a"):
        with pytest.raises(ValueError, match=r"no format of splat files; known: \.ply, \.splat, "):
            formats.save(tmp_path / name, scene)
        with pytest.raises(ValueError, match=f"{name}: .* is no format"):
            formats.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"a\.glb: this format has no option version; it has none"):
        formats.save(tmp_path / "a.glb", scene, version=3)
    with pytest.raises(ValueError, match=r"a\.spz: .* no option speed; it has version"):
        formats.save(tmp_path / "a.spz", scene, version=3, speed=1)
    assert not list(tmp_path.iterdir())


def test_all_formats_can_be_rendered_as_data():
    assert set(splat_views.LOADERS) == {".ply", ".splat", ".spz", ".glb"}


def test_scenes_save_themselves(tmp_path):
    scene = splat_scenes.make(20)
    path = scene.save(tmp_path / "a.spz", version=3)
    assert path.read_bytes() == formats.save(tmp_path / "b.spz", scene).read_bytes()
