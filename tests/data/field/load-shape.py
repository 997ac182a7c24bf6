from typing import ClassVar

from locust import LoadTestShape

from loadgen.user import EtcdUser


class Mine(EtcdUser):
    abstract = False
    mix: ClassVar = {"put": 1.0}


class Steps(LoadTestShape):
    def tick(self):
        return (1, 1) if self.get_run_time() < 2 else None
