"""What drives the load, and what becomes of the numbers."""
