"""The README's program for trained models runs as it is printed, in a folder that has what it says.

Samples are fewer here, and the sampler's steps too.
"""

import json
import pathlib
import re

import numpy as np
from PIL import Image

from lgs_jax.data.sources.procedural import ProceduralSource
from lgs_jax.inference import model_file, pretrained

README = pathlib.Path(__file__).parents[1] / "README.md"


def write_capture(folder):
    """Photographs of one scene and a transforms.json, as other programs write it."""
    folder.mkdir()
    made = ProceduralSource(1, 5, height=48, width=64, kind="objects")[0]
    frames = []
    for i, pose in enumerate(made.world_from_cam):
        Image.fromarray(made.images[i]).save(folder / f"{i}.png")
        matrix = (pose @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()
        frames.append({"file_path": f"{i}.png", "transform_matrix": matrix})
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), made.intrinsics[0].tolist(), strict=True))
    (folder / "transforms.json").write_text(json.dumps(lens | {"frames": frames}))


def test_trained_models_in_your_own_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_capture(tmp_path / "my_capture")
    model_file.unpack(pretrained.find("objects-small"), "runs")
    title = "## Trained models in your own code"
    (program,) = re.findall(rf"{title}\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}
    exec(program.replace("num_samples=4", "num_samples=2, steps=2"), names)
    assert names["images"].shape == (5, 48, 64, 3)
    assert names["scene"].num_gaussians == 2 * 48 * 48
    assert names["scenes"].batch_shape == (2,)
    for scene in (names["scene"], names["scenes"]):
        assert np.isfinite(np.asarray(scene.means)).all()
