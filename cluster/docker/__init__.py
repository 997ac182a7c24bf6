"""Clusters of containers: the Engine, images, members."""
