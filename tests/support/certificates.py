"""Certificates for tests, made by the product's own generator."""

from cluster.base.certificates import DAY, Authority, Pair

__all__ = ["DAY", "Authority", "Pair"]
