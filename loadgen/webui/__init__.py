"""The pages that `raftload web` adds to Locust's web UI: the Cluster page, finished runs and their files."""
