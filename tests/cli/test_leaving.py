"""How the program ends: Ctrl-C at bad moments, and readers of its output that have gone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lgs_jax.cli import interrupts

# A command that does what `body` says, started as a program.
PROGRAM = """
import gc, hashlib, os, pathlib, signal, sys, threading, time
from lgs_jax import __main__ as front
from lgs_jax.cli import completion

def main(arguments):
{body}

completion.main = main
sys.argv = ["lgs-jax", "completion"]
sys.exit(front.main())
"""


def start(body, **options):
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    program = PROGRAM.format(body=lines)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-c", program], text=True, **pipes)


def test_ctrl_c_ends_the_program_although_its_threads_work_on():
    process = start(
        """\
threading.Thread(target=time.sleep, args=(60,)).start()  # the interpreter would wait for it
print("begun", flush=True)
signal.raise_signal(signal.SIGINT)
"""
    )
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (130, "begun\n", "stopped\n")


def test_ctrl_c_is_not_lost_in_a_callback():
    process = start(
        """\
def press(phase, info):
    gc.callbacks.clear()
    signal.raise_signal(signal.SIGINT)
    for _ in range(1000):
        pass  # here it is raised, and swallowed
    os.write(1, b"not reached\\n")
gc.callbacks.append(press)
gc.collect()
for _ in range(600):
    time.sleep(0.1)
"""
    )
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (130, "", "stopped\n")


@pytest.fixture
def stuck():
    """A program that is in C for minutes, and has not heard of Ctrl-C yet."""
    process = start(
        """\
print("begun", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.2)
    yield process
    process.kill()
    process.communicate()


def test_a_second_ctrl_c_ends_what_cannot_listen(stuck):
    stuck.send_signal(signal.SIGINT)
    assert stuck.stderr.readline().startswith("stopping when the computation in flight is done")
    assert stuck.poll() is None
    stuck.send_signal(signal.SIGINT)
    assert stuck.wait(timeout=30) == 130


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_work_is_done_although_nobody_reads(tmp_path, stream):
    reading, writing = os.pipe()
    process = start(
        f"""\
for i in range(10000):
    print(i, file=sys.{stream})
pathlib.Path({str(tmp_path / "done")!r}).touch()
""",
        **{stream: writing},
    )
    os.close(writing)
    os.close(reading)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert not errors
    assert (tmp_path / "done").exists()


def test_streams_are_wrapped_once(monkeypatch):
    """`train` is a program of its own in this one: both want their readers outlived."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # put back at the end
    interrupts.outlive_readers()
    wrapped = sys.stdout, sys.stderr
    interrupts.outlive_readers()
    assert (sys.stdout, sys.stderr) == wrapped
