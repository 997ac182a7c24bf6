"""Official releases of etcd in the user's cache: fetched, verified, listed and removed."""
