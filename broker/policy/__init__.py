"""Who may do what: the policy language, its compiler and its judgements. No I/O libraries."""
