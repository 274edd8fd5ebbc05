"""Ctrl-C and closed pipes: neither lost nor late, and no crash at the end.

Python hands Ctrl-C to a program when its main thread comes back from C, where XLA may compile for
half a minute. An exception that is raised inside a callback, such as the garbage collector's, is
swallowed. And an interpreter that ends while XLA's threads still compute may crash.
"""

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

STOPPED, STATUS = "stopped", 130  # 128 + SIGINT, as shells have it

_PATIENCE = 1.0  # seconds after which a person wonders
_BUSY = b"stopping when the computation in flight is done; Ctrl-C again ends it now\n"
_AGAIN = 0.05  # seconds until a swallowed Ctrl-C is raised once more


def listen() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt also where Python alone would lose or delay it.

    While the main thread is in C, it is said that Ctrl-C was heard; the next one ends the program.
    Call it from the main thread, once.
    """
    heard = threading.Event()

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        heard.set()
        raise KeyboardInterrupt

    def wait(pressed: int) -> None:
        while True:
            _next(pressed)
            if not heard.wait(_PATIENCE):
                os.write(2, _BUSY)
                _next(pressed)
                if not heard.is_set():
                    leave()
            heard.clear()

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=wait, args=(reading,), daemon=True).start()
    sys.unraisablehook = _raise_again(sys.unraisablehook)


def _next(pressed: int) -> None:
    """Returns when the file of signals' numbers brings the next Ctrl-C."""
    while os.read(pressed, 1) != bytes([signal.SIGINT]):
        pass


def _raise_again(otherwise: Any) -> Any:
    main_thread = threading.main_thread().ident

    def hook(swallowed: Any) -> None:
        if issubclass(swallowed.exc_type, KeyboardInterrupt):
            threading.Timer(_AGAIN, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
        else:
            otherwise(swallowed)

    return hook


def leave() -> None:
    """Ends the program with `STATUS` there and then, and its workers; says so on stderr."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os.write(2, f"{STOPPED}\n".encode())
    if "multiprocessing" in sys.modules:
        for worker in sys.modules["multiprocessing"].active_children():
            worker.kill()
    os._exit(STATUS)


def outlive_readers() -> None:
    """Lets the program do its work where what reads its output has gone, as in `... | head`.

    A second call, which `lgs-jax train` makes as it starts a program in this one, changes nothing.
    """
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, _Output) else _Output(stream)
        for stream in (sys.stdout, sys.stderr)
    )


class _Output:
    """A text stream whose writes go nowhere once its pipe is closed at the other end."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._unless_closed():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unless_closed():
            self._stream.flush()

    @contextlib.contextmanager
    def _unless_closed(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
