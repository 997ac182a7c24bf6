"""The history of a run: what its clients did and saw, written while it runs, read when it is judged.

``writer.HistoryWriter`` is the writing end, one file a worker; ``reader.read`` gives a ``History`` of a run folder's
files. The format is described in docs/formats.md and in ``format``. Workers import the writer alone: the reader needs
numpy.
"""
