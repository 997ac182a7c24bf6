"""Known bugs of etcd, each tried on a throwaway cluster: does this etcd break the guarantee?"""
