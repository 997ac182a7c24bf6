"""etcd's messages, generated from our own description of the API; how to regenerate stands in etcd.proto."""
