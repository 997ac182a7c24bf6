"""The loads and pass marks of `etcdctl check perf` and `check datascale`, and the reasons where they fail."""
