"""Questions to several members at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def at_once(question: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Return the answers in the order of the things, each asked in a thread of its own."""
    answers = [Future[R]() for _ in things]

    def run(answer: Future[R], thing: T) -> None:
        try:
            answer.set_result(question(thing))
        except BaseException as exc:
            answer.set_exception(exc)

    for pair in zip(answers, things, strict=True):
        threading.Thread(target=run, args=pair, daemon=True).start()  # a pool's threads would hold Ctrl-C up
    return [answer.result() for answer in answers]
