"""The runs of a session under the web UI: each test that it starts, from its keys to its folder."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.base.console import say, terminal_width, wants_color
from cluster.base.endpoint import split_endpoints
from cluster.base.errors import RaftloadError
from cluster.base.signals import Interrupted
from loadgen.load import listening, scenarios, settings
from loadgen.result import abort
from loadgen.run import run_folder
from loadgen.run.session import LATEST_BEGIN_S

if TYPE_CHECKING:
    import gevent

    from cluster.base.exits import Failure
    from cluster.schema.run_documents import Result
    from loadgen.load.locust_types import Environment, Greenlet
    from loadgen.run.run import Run
    from loadgen.run.session import Session
    from loadgen.run.target import Target
    from loadgen.webui.cluster_view import ClusterView

FILES = {"report.html": "text/html", "result.json": "application/json"}


class Runs:
    """Listens to Locust's start of a test, and keeps a run's books until its folder is written.

    Attributes:
        target: the target behind endpoints.
        finished: the results that were written, by the name of their folder, in the order of their ends.
        folders: where each is.
        starting: from when Locust was asked for a run until the run goes on or was refused.
    """

    def __init__(
        self,
        session: Session,
        target: Callable[[tuple[str, ...]], Target],
        view: ClusterView,
        args: argparse.Namespace,
        command: tuple[str, ...],
    ) -> None:
        """Take a function from endpoints to the target behind them, which raises ClusterError where there is none, and
        the command line for the record.
        """
        self._session = session
        self.target = target
        self._cluster_view = view
        self._args = args
        self._command = command
        self._run: Run | None = None
        self._watcher: gevent.Greenlet | None = None
        self.finished: dict[str, Result] = {}
        self.folders: dict[str, Path] = {}
        self.starting = False
        listening.listen(session.environment.events.test_start, self._on_test_start)
        listening.listen(session.environment.events.test_stopping, self._on_test_stopping)

    @property
    def under_way(self) -> bool:
        """Whether a run has begun and its folder is not yet complete."""
        return self._watcher is not None and not self._watcher.dead

    @property
    def is_deserted(self) -> bool:
        """Whether no worker is left for a run."""
        return self._session.is_deserted

    def wait_begun(self, starter: Greenlet | None) -> None:
        """Wait until a run that was asked for has reached every worker; returns at once where none is starting.

        A stop ends Locust's own greenlet that starts a test, which it takes. Ended in between, it leaves workers that
        begin after the stop, or never say that they are done. So it is ended here, once the run has begun.
        """
        import gevent

        deadline = time.monotonic() + LATEST_BEGIN_S
        while starter is not None and not starter.dead and time.monotonic() < deadline:
            if not self.starting and (not self.under_way or self._session.has_begun):
                break
            gevent.sleep(0.02)
        if starter is not None and not starter.dead:
            starter.kill(block=True)
            # It leaves the message that starts more users to a greenlet: that would come after the stop.
            gevent.sleep(0.01)

    def files(self, name: str) -> list[str]:
        """Which of a finished run's FILES there are."""
        return [file for file in FILES if name in self.folders and (self.folders[name] / file).is_file()]

    def _on_test_start(self, environment: Environment, **_: object) -> None:
        try:
            self._start(environment)
        finally:
            self.starting = False

    def _on_test_stopping(self, environment: Environment, **_: object) -> None:
        if self._run is not None and self.under_way:
            self._run.stopped_by_locust()

    def _start(self, environment: Environment) -> None:
        import gevent
        from locust.exception import StopTest

        from loadgen.load import keyspace
        from loadgen.run import Plan
        from loadgen.run.run import Run

        if self._watcher is not None:
            self._watcher.join(timeout=10)
        options = environment.parsed_options
        try:
            endpoints = split_endpoints(environment.host)
            options.key_prefix = ""
            load = settings.Settings.from_options(vars(options), endpoints)
            load = keyspace.for_scenario(environment.user_classes, load)
            folder = run_folder.planned(scenarios.check(self._args.scenario), None, self._args.output)
            plan = Plan(
                load, int(options.num_users or 1), self._args.keep, self._command,
                abort_on=tuple(self._args.abort_on),
            )  # fmt: skip
            with run_folder.for_a_run(folder, exact=False, say=self._say) as folder:
                target = self.target(endpoints)
                for sentence in self._session.drop_dead():
                    self._say(f"warning: {sentence}")
                self._run = Run(self._session, target, plan, folder)
        except Exception as error:
            self._say(f"error: the run was not started: {error}")
            environment.runner.log_exception("master", f"the run was not started: {error}", "")
            raise StopTest(str(error)) from error
        self._cluster_view.load.clear()
        self._cluster_view.folder = folder
        self._cluster_view.note(f"run {folder.name} begins")
        self._run.started_by_locust()
        self._watcher = gevent.spawn(self._finish, self._run, target)

    def _finish(self, run: Run, target: Target) -> None:
        """Wait for the run's workers, bring Locust to rest, and write the run folder."""
        import gevent

        from loadgen.load.locust_internals import bring_to_rest
        from loadgen.result import table

        run.wait()
        if run.aborted is not None:
            self._say(f"the load was {abort.reason(run.aborted)}")
        gevent.spawn(bring_to_rest, self._session.runner)
        self._cluster_view.folder = None
        try:
            result = run.finish()
        except Exception as error:
            self._say(f"error: the run folder {run.folder} is not complete: {error}")
            return
        if run.unwritten:
            self._say(f"error: the run folder {run.folder} is not complete: {run.unwritten}")
        elif missing := self._keep_logs(run, target):
            self._say(f"warning: not all logs are in {run.folder}: {missing}")
        from viz.report import page

        if reason := page.try_write(run.folder, result):
            self._say(f"warning: {reason}")
        self.folders[run.folder.name] = run.folder.resolve()
        self.finished[run.folder.name] = result
        self._cluster_view.note(f"run {run.folder.name} is finished: {result['verdict']}")
        print(
            table.render(result, color=wants_color(sys.stderr), width=terminal_width(), folder=run.folder),
            file=sys.stderr,
        )

    def _keep_logs(self, run: Run, target: Target) -> str:
        """Copy the session's logs into a run's folder; return why that cannot be done."""
        logs = run.folder / "logs"
        try:
            if target.cluster is not None:
                # A report draws the elections of its run from them.
                target.cluster.save_logs(logs)
            for log in (worker.log for worker in self._session.workers if worker.log is not None):
                (logs / log.name).write_bytes(log.read_bytes())
        except (OSError, RaftloadError) as error:
            return str(error)
        return ""

    def _say(self, text: str) -> None:
        say(text)
        self._cluster_view.note(text)

    def cut_short(self, failure: Failure, logs: Path) -> Failure:
        """End a run that is going on with what it measured, and keep the session's logs in its folder.

        Takes what ended the session, and the folder of its logs, which ends with it. Returns the failure with the log
        that stays. Without a run the logs get a folder like that of a run.
        """
        run = self._run if self.under_way else None
        self._session.halt()
        if run is not None and self._watcher is not None:
            self._watcher.kill()
            run.cut_short(failure)
            folder = run.folder
        else:
            folder = run_folder.create(run_folder.planned("web", None, self._args.output), exact=False, say=self._say)
        for log in logs.glob("*.log"):
            (folder / "logs" / log.name).write_bytes(log.read_bytes())
        name = "master.log" if failure.log is None else Path(failure.log).name
        return dataclasses.replace(failure, log=folder / "logs" / name)

    def close(self) -> None:
        """Stop a run that is going on and keep what it measured, also where a second signal comes meanwhile."""
        if self._run is None or self._watcher is None or self._watcher.dead:
            return
        if not self._run.over:
            self._run.ask_stop("SIGINT")
        try:
            self._watcher.join(timeout=30)
        except Interrupted:
            self._run.hurry()
            self._watcher.join(timeout=10)
