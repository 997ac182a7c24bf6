"""etcd over gRPC: connections under gevent, and the calls of etcd's API."""
