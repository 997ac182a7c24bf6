"""The check of a recorded history against etcd's promises: pure functions from a History to verdicts, O(n log n).

No search over interleavings is needed: the revision in an answer's header is the place of the operation in the one
order that all members agreed on. ``evidence`` decodes what was recorded, ``replay`` walks the revisions in order with
a store of its own (``store``) and holds every answer and every watch event against it; ``order`` holds the revisions
against real time; ``watches``, ``leases``, ``members`` and ``raft`` have the rules that need more than one revision.
"""
