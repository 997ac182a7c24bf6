"""The diagnosis of a cluster: what is slow, and which evidence says so."""
