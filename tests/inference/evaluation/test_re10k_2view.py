"""The protocol re10k_2view from a data set in its layout and an index to the scores."""

import hashlib
import json

import numpy as np
import pytest
import tiny_autoencoder as tiny
from PIL import Image

from lgs_jax import __main__
from lgs_jax.data.sources.procedural import ProceduralSource
from lgs_jax.training import checkpoint, optimizer, state

SIZE, FRAMES = 256, 7
INDEX = {
    "walk": {"context": [1, 5], "target": [2, 3, 4]},
    "turn": {"context": [0, 6], "target": [5, 1, 3]},
    "stand": None,  # no good choice of views, says the index
}


def write_scene(root, name, example):
    """A walk-through in RealEstate10K's layout."""
    frames = root / "frames" / "test" / name
    frames.mkdir(parents=True)
    lines = [f"https://example.org/{name}"]
    for i, pose in enumerate(example.world_from_cam):
        Image.fromarray(example.images[i]).save(frames / f"{1000 * i}.png")
        numbers = [*(example.intrinsics[i] / SIZE), 0, 0, *np.linalg.inv(pose)[:3].flat]
        lines.append(f"{1000 * i} " + " ".join(map(str, numbers)))
    (root / "test").mkdir(exist_ok=True)
    (root / "test" / f"{name}.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def scenes():
    source = ProceduralSource(num_scenes=3, num_frames=FRAMES, height=SIZE, width=SIZE)
    return {name: source[i] for i, name in enumerate(INDEX)}


def test_every_scene_of_the_index_is_scored_at_its_views(scenes, tmp_path, capsys):
    root, run, folder = tmp_path / "re10k", tmp_path / "run", tmp_path / "out"
    for name, example in scenes.items():
        write_scene(root, name, example)
    (root / "index.json").write_text(json.dumps(INDEX))
    data = {
        "source": "realestate10k",
        "root": str(root),
        "holdout": ("test/*",),
        "context_views": 2,
        "target_views": 1,  # a model that was trained with another number is none the worse
        "height": SIZE,
        "width": SIZE,
    }
    saved = state.create(tiny.make_params(), optimizer.make(optimizer.OptimizerSettings()))
    with checkpoint.Checkpoints(run / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(1, saved, tiny.CONFIG | {"data": data}, {"seconds": 0.0})
        checkpoints.wait()

    fixed = [f"--model={run}", "--protocol=re10k_2view", f"--output={folder}", "--batch-size=1"]
    status = __main__.main(["evaluate", *fixed, "--view-index=index.json"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    results = json.loads((folder / "results.json").read_text())
    assert results["left_out"] == 0
    found = {record["key"]: record for record in results["scenes"]}
    assert set(found) == {"test/walk", "test/turn"}
    for key, record in found.items():
        name = key.removeprefix("test/")
        shown = hashlib.sha256(key.encode())
        for part in ("context", "target"):
            for frame in INDEX[name][part]:
                shown.update(scenes[name].images[frame].tobytes())
        assert record["sha256"] == shown.hexdigest()
        (sample,) = record["samples"]
        assert {len(values) for values in sample.values()} == {5}
    mean = np.mean([record["samples"][0]["psnr"][2:] for record in found.values()])
    assert results["scores"]["psnr"]["target"]["first"]["mean"] == pytest.approx(mean)
