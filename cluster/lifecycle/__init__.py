"""Clusters found, made and removed, on either backend."""
