"""The `raftload viz` command."""
