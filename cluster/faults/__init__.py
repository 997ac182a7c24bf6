"""Faults of members and links: their kinds, a plan of rounds, the nemesis that injects them."""
