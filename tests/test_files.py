"""Files appear whole or not at all; JSON is read or refused."""

import json

import pytest
from etils import epath

from lgs_jax import files


def test_success_replaces_the_file(tmp_path):
    path = tmp_path / "a" / "b.txt"
    for text in ("first", "second"):
        with files.replacing(path) as partial:
            assert partial.suffix == ".txt"
            partial.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_failure_keeps_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("old")

    def fail_half_way():
        with files.replacing(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_replaced_in_one_go(tmp_path):
    for path in (tmp_path / "a.json", epath.Path(tmp_path) / "b.json"):
        files.write_json(path, {"a": 1})
        with pytest.raises(TypeError):
            files.write_json(path, {"a": object()})
        assert json.loads(path.read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_addresses_are_no_paths_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.local("~/new", "--output") == tmp_path / "new"
    for place in ("gs://bucket/x", "https://example.com/x"):
        with pytest.raises(ValueError, match=f"--output={place} is an address"):
            files.local(place, "--output")


def test_json_is_read_in_any_unicode_and_what_is_none_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text('{"ä": 1}', encoding=encoding)
        assert files.read_json(path) == files.read_json(epath.Path(path)) == {"ä": 1}
    for broken in (b"\xff{", b"{", b"[" * 200_000):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"nested too deeply|Expecting|decode"):
            files.read_json(path)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "absent.json")
