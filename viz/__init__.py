"""The views of a Raft cluster: diagrams, live views, reports."""
