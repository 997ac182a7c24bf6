"""The ground truth of `raftload diagnose`: causes with their labels, and how each is injected into a real cluster."""
