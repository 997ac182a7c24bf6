"""The loads and pass marks of `etcdctl check perf`, and the reasons where they fail."""
