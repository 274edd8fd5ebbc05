"""The line that long tasks print, with a clock of its own."""

from lgs_jax.data import progress


def lines(monkeypatch, additions, **options):
    """(seconds since the last one, count) -> what was said."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = []
    counter = progress.Progress(10, "scenes", said.append, **options)
    for seconds, count in additions:
        now[0] += seconds
        counter.add(count)
    return said


def test_speed_and_time_left(monkeypatch):
    assert lines(monkeypatch, [(2, 4), (2, 4), (1, 2)]) == [
        "4 of 10 scenes | 2.0 per second | 3 s to go",
        "8 of 10 scenes | 2.0 per second | 1 s to go",
        "10 of 10 scenes | 2.0 per second | 0 s to go",
    ]


def test_what_was_there_before_does_not_count_for_the_speed(monkeypatch):
    assert lines(monkeypatch, [(2, 1)], done=7) == ["8 of 10 scenes | 2.0 s each | 4 s to go"]


def test_lines_are_rare_but_for_the_last(monkeypatch):
    said = lines(monkeypatch, [(1, 1)] * 10, every_s=4.0)
    assert [line.split()[0] for line in said] == ["4", "8", "10"]
