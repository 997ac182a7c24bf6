"""Results of a run: the document, Locust's CSV files, thresholds, tables, JUnit."""
