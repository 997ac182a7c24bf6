"""The system under test: etcd members, where they run, and the faults that are injected into them."""
