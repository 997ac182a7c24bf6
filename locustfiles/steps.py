"""The knee of the latency/throughput curve: twice as many users in each step, in the proportions of --mix.

All users are there from the start; in the first step one of them works, then two, four, and so on until all do. The
steps share the run's time evenly.

    raftload bench --scenario steps --concurrency 64 --duration 70s
    locust -f locustfiles/steps.py --host 127.0.0.1:2379 --headless -u 64 -r 64 -t 70s

The result's `knee` says where latency begins to grow faster than throughput, and how that is found. For steps of a rate
instead of users, any scenario will do: `raftload bench --step 500:4000:500/10s`.
"""

import time

import gevent

from loadgen.result.knee import users_by_step
from loadgen.user import EtcdUser

DEFAULT_S = 60.0
_LOOK_S = 0.1


class StepsUser(EtcdUser):
    """A user that waits for its step."""

    abstract = False

    def on_start(self) -> None:
        """Join the worker's run, and wait until as many users are to work as there are before this one."""
        super().on_start()
        if self.load.open_loop is not None:
            return  # --step has steps of its own
        steps = users_by_step(self.load.users)
        length_s = self.load.settings.duration_s or float(self.environment.parsed_options.run_time or 0) or DEFAULT_S
        step = next((n for n, users in enumerate(steps) if self.load.place(self.process) < users), len(steps) - 1)
        begins_ns = self.load.warm_until_ns + round(step * length_s / len(steps) * 1e9)
        while (left_s := (begins_ns - time.perf_counter_ns()) / 1e9) > 0:
            gevent.sleep(min(left_s, _LOOK_S))
            if self.leaving:
                return
