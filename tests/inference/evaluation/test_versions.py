"""The record of an evaluation names the software that made it."""

import re
import subprocess

from lgs_jax.inference.evaluation import versions


def test_versions_name_the_commit_of_the_packages_own_checkout(tmp_path, monkeypatch):
    assert {"jax", "jaxlib", "flax", "device", "commit"} <= set(versions.found())
    (tmp_path / "package").mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(git + command, check=True)
    commit = versions._commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert versions._commit(tmp_path / "package") is None
    monkeypatch.setenv("PATH", "")
    assert versions._commit(tmp_path) is None
