"""What `raftload web` adds to Locust's web UI: the Cluster page, the runs and their files, and who may ask for what."""
