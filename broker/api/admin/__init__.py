"""The admin API: on a listener of its own, for administrators' tokens alone."""
