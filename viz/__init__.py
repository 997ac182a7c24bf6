"""How people see a Raft cluster: diagrams and live views."""
