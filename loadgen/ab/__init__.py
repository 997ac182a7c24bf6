"""Two versions, settings or clusters by turns, and the judgement of their pairs."""
