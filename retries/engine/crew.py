"""Threads that work claimed jobs, started as they are needed; each closes its database connection when it ends."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

from django.db import connection

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


class Crew(Generic[TaskT, ResultT]):
    """At most `size` threads that call `work`. Used by one thread, inside `with`: leaving it waits for all of them."""

    def __init__(self, size: int, work: Callable[[TaskT], ResultT], name: str) -> None:
        self._size, self._work, self._name = size, work, name
        self._todo: SimpleQueue[TaskT | None] = SimpleQueue()
        self._done: SimpleQueue[ResultT | BaseException] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.open = 0

    def give(self, task: TaskT) -> None:
        """Hand out a task; it may have to wait for a free thread."""
        self.open += 1
        if self.open > len(self._threads) < self._size:
            thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}")
            self._threads.append(thread)
            thread.start()
        self._todo.put(task)

    def take(self) -> ResultT:
        """Wait for the next result, in whatever order they come. Raises what `work` raised."""
        result = self._done.get()
        self.open -= 1
        if isinstance(result, BaseException):
            raise result
        return result

    def take_all(self) -> list[ResultT]:
        """Wait for the next result, and take with it all that are there by then. Raises what `work` raised if it is the
        next; results that are there already are not lost by that."""
        results = [self.take()]
        while not self._done.empty():  # nobody else takes any
            result = self._done.get()
            if isinstance(result, BaseException):
                self._done.put(result)
                break
            self.open -= 1
            results.append(result)
        return results

    def _run(self) -> None:
        try:
            while (task := self._todo.get()) is not None:
                try:
                    self._done.put(self._work(task))
                except BaseException as error:  # noqa: BLE001 - `take` raises it in the thread that waits for it
                    self._done.put(error)
        finally:
            connection.close()

    def __enter__(self) -> "Crew[TaskT, ResultT]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()
