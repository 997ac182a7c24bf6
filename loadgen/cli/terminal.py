"""The terminal of a command that runs load: its messages, its progress, and Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from cluster.base.console import Painter, StatusLine, events, say, show, terminal_width, wants_color
from cluster.base.signals import Interrupted
from cluster.observe import samples
from loadgen.result import abort, gate
from loadgen.run import Hooks

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.schema.run_documents import Aborted, Result
    from loadgen.run.gevent_signals import Signals
    from loadgen.run.progress import Progress
    from loadgen.run.run import Run


class Terminal(Hooks):
    """Messages and a progress line on stderr, or events for programs.

    The first signal ends the load, a second one what is waited for then. As a context manager it gives the
    signals back.
    """

    def __init__(self) -> None:
        self._signals: Signals | None = None
        self._line = StatusLine()
        self.clear = self._line.clear
        self._events = events()
        self._progress: Progress | None = None
        self._said_why = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._signals is not None:
            self._signals.close()
        if isinstance(error, Interrupted):
            say("interrupted before there was a result")

    def say(self, message: str) -> None:
        """Print a message."""
        say(message)

    def forked(self) -> None:
        """Handle signals."""
        from loadgen.run.gevent_signals import Signals

        self._signals = Signals()

    def load_begins(self, stop: Callable[[str], None]) -> None:
        """Have the first signal end the load, and each further one what is waited for."""
        assert self._signals is not None
        self._signals.gently = self._signals.again = stop

    def tick(self, run: Run) -> None:
        """Draw the progress line anew, five times a second at most; programs get an event each second."""
        if run.aborted is not None and not self._said_why:
            self._said_why = True
            self._say_why(run.aborted)
        if self._events is not None:
            self._events_of(run).tick()
        elif self._line.is_due():
            paint = Painter(wants_color(sys.stderr))
            failed = f"{run.stats.total.num_failures:,} failed"
            text = _progress(run, failed)[: terminal_width() - 1]
            self._line.draw(text.replace(failed, paint(failed, "red")) if run.stats.total.num_failures else text)

    def _events_of(self, run: Run) -> Progress:
        """Return what tells programs of a run."""
        from loadgen.run.progress import Progress

        assert self._events is not None
        if self._progress is None:
            self._progress = Progress(run, self._events)
        return self._progress

    def _say_why(self, aborted: Aborted) -> None:
        self.clear()
        if self._events is not None:
            self._events.emit("aborted", **aborted)
        else:
            say(f"the load is {abort.reason(aborted)}")

    def load_ended(self) -> None:
        """Take the progress line away, and have the first signal wait until the results are written."""
        assert self._signals is not None
        self.clear()
        self._signals.gently = lambda _: None

    def results_written(self) -> None:
        """Have a signal raise Interrupted in what follows a run of which there is a result."""
        assert self._signals is not None
        self._signals.gently = self._signals.again = None


def finish(folder: Path, result: Result, as_json: bool, render: Callable[..., str], *, complete: bool = True) -> int:
    """Write the page of a run that has ended, show its result and where its folder is; return the exit code.

    Takes whether the folder could be written: else the command says so itself, with the reason.
    """
    from viz.report import page

    if (reason := page.try_write(folder, result)) and complete:
        say(f"warning: {reason}")
    if (told := events()) is not None:
        total = result["results"]["total"]
        told.at_end = {
            "verdict": result["verdict"], "verdict_reasons": result["verdict_reasons"], "folder": str(folder),
            "operations": total["operations"] if total else 0, "failures": total["failed"] if total else 0,
        }  # fmt: skip
    show(result, as_json, render)
    if not as_json:
        say(f"run folder {folder}")
    return gate.exit_code(result)


def _progress(run: Run, failed: str) -> str:
    """Return how far a run is: ``600/1,000 operations   3,000/s   p99 4.20 ms   0 failed   1 s left``."""
    from loadgen.stats.precision import percentile

    total, elapsed_s, settings = run.stats.total, run.elapsed_s, run.settings
    done, wanted, left = total.num_requests, settings.operations, None
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    p99 = "no answer yet"
    if total.response_times:
        known = samples.are_enough(done - total.num_failures, 0.99)
        p99 = f"p99 {percentile(total, 0.99):.2f} ms" if known else "p99 -"
    head = f"{done:,} operations"
    if wanted is not None:
        head = f"{done:,}/{wanted:,} operations"
        left = (wanted - done) / rate if rate else None
    elif settings.duration_s:
        left = max(0.0, settings.duration_s - run.load_s)
    tail = f"{left:.0f} s left" if left is not None else f"{elapsed_s:.0f} s"
    if run.interrupted:
        tail = f"{run.interrupted}: waiting for open operations"
    elif run.aborted is not None:
        tail = "--abort-on: waiting for open operations"
    return f"{head}   {rate:,.0f}/s   {p99}   {failed}   {tail}"
