"""Plain values and small helpers that every part uses: errors, endpoints, units, signals, the terminal, verdicts."""
