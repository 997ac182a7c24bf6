"""The version matrix: what of raftload has been run on which release of etcd, and what came of it."""
