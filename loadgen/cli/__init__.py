"""The `raftload` command: one file a subcommand."""
