"""etcd over its JSON gateway, by etcd3-py: clients for control, administration and the conformance tests."""
