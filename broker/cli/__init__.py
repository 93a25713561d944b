"""The `broker` command, one file per command group."""
