"""Count what agents do against what policy lets them do, in this process or with others."""
