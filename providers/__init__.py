"""Provider plugins: one file per kind, found by name, loaded when a policy uses it."""
