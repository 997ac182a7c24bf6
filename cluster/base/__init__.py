"""Plain values and small helpers that every part uses: errors, endpoints, versions, units, signals, ports."""
