"""One load scenario a file; each also runs under plain `locust -f`."""
