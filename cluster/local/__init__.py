"""Clusters of processes on this machine: members, their keeper, the daemon of a cluster that stays."""
