"""What raftload tests: etcd members, where they run and what is done to them."""
