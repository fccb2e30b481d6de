"""A thread that runs compiled functions side by side with the caller's own: two queues, and nothing else per call.

`concurrent.futures` does the same with more work per call than a batch of environments takes for its step."""

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class Worker:
    """One thread. `give` it a call, `wait` for its end; what the call raises is raised by `wait`. The thread ends with
    this object."""

    def __init__(self) -> None:
        self.process = os.getpid()  # a thread does not live on in a fork
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=_run, args=(self._calls, self._ends), name="odin-environments", daemon=True
        )
        self._thread.start()
        self._end = weakref.finalize(self, self._calls.put, None)

    def give(self, function: Callable[..., object], *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def wait(self) -> None:
        error = self._ends.get()
        if error is not None:
            raise error

    def close(self) -> None:
        """End the thread, after the call that it has in hand."""
        self._end()
        self._thread.join()


def _run(
    calls: "SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None]",
    ends: "SimpleQueue[BaseException | None]",
) -> None:
    while (call := calls.get()) is not None:
        try:
            call[0](*call[1])
        except BaseException as error:  # the caller raises it
            ends.put(error)
        else:
            ends.put(None)
        del call
