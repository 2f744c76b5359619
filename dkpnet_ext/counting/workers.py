"""Pictures and frames side by side: a thread takes one through all steps, instead of all threads sharing each layer.

So no thread waits for another after every layer, and decoding, drawing and writing need no core of their own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..models import CrowdCounter

MOST = 8  # at a time: each has the features of a whole network in memory


class Workers:
    """Threads that share PyTorch's threads out among themselves.

    Args:
        model: what they count with.
        items: how many there are, where that is known: a single picture gets all threads.
    """

    def __init__(self, model: CrowdCounter, items: int = MOST) -> None:
        self.threads = torch.get_num_threads()
        self.number = max(1, min(self.threads, items, MOST))
        on_cpu = model.pixel_mean.device.type == "cpu"
        self.turn: AbstractContextManager = (
            nullcontext() if on_cpu else threading.Lock()
        )  # one picture at a time on a GPU
        self.begun: deque[tuple[Any, Future]] = deque()
        # PyTorch keeps this number for every thread; engines take it from there.
        share = self.threads // self.number
        self._pool = ThreadPoolExecutor(self.number, initializer=torch.set_num_threads, initargs=(share,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)  # a new thread begins with the number that was set last, by any thread

    def begin(self, item: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Let the next free thread do it."""
        self.begun.append((item, self._pool.submit(function, *arguments)))

    def finished(self, left: int) -> Iterator[tuple[Any, Future]]:
        """Items in the order in which they were begun, each with its result, until ``left`` remain."""
        while len(self.begun) > left:
            wait([self.begun[0][1]])  # Ctrl-C here leaves it in `begun`
            yield self.begun.popleft()

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Every item with its function's value, in order; no more are begun than are being used."""
        for item in items:
            self.begin(item, function, item)
            for done, future in self.finished(self.number):
                yield done, future.result()
        for done, future in self.finished(0):
            yield done, future.result()
