"""The `raftload cluster` and `raftload etcd` commands."""
