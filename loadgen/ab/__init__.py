"""Two versions, settings or clusters by many short turns, so that the machine's drift meets both, and their verdict."""
