"""Processes that work on the parts of a task, and that Ctrl-C ends without a word from them."""

import contextlib
import functools
import multiprocessing
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

Result = TypeVar("Result")

_CTRL_C = {signal.SIGINT}
_STATUS = 130
# In a worker: work that is still queued is not begun.
_stopped = threading.Event()


def run(
    work: Callable[[int], Result], numbers: Sequence[int], num_workers: int
) -> Iterator[tuple[int, Result]]:
    """Numbers and results as they come; in this process without workers.

    Raises:
      KeyboardInterrupt: after Ctrl-C, which a terminal sends to all processes.
    """
    if not num_workers:
        yield from ((number, work(number)) for number in numbers)
        return
    # Not forked: threads of the parent may hold locks.
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(num_workers, mp_context=context)
    try:
        with _ctrl_c(signal.SIG_BLOCK):  # workers have it blocked from their first import on
            stoppable = functools.partial(_stoppable, work)
            pending = {pool.submit(stoppable, number): number for number in numbers}
        for task in futures.as_completed(pending):
            yield pending[task], task.result()
    except SystemExit:  # of a worker that Ctrl-C reached before this process
        raise KeyboardInterrupt from None
    finally:
        pool.shutdown(cancel_futures=True)


def _stoppable(work: Callable[[int], Result], number: int) -> Result:
    """In a worker: lets Ctrl-C through for as long as it works; the parent gets it as a result."""
    signal.signal(signal.SIGINT, _stop)
    with _ctrl_c(signal.SIG_UNBLOCK):
        if _stopped.is_set():
            sys.exit(_STATUS)
        return work(number)


def _stop(number: int, frame: types.FrameType | None) -> None:
    _stopped.set()
    sys.exit(_STATUS)


@contextlib.contextmanager
def _ctrl_c(how: int) -> Iterator[None]:
    """Blocks or unblocks it for this thread; one that comes while it is blocked waits."""
    before = signal.pthread_sigmask(how, _CTRL_C)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
