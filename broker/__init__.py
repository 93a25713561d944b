"""Exchange a workload identity for a task token, and a task token for access."""
