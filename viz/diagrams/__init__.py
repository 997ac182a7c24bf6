"""Models of Raft and of observed elections, and their renderers."""
