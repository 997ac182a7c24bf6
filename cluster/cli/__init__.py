"""The  and `raftload etcd` commands."""
