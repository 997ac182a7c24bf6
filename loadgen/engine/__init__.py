"""The compiled core of the load path and its plug into Locust's users."""
