"""FLOW 3: a task token comes back for a credential, a provider mints it, and it is ended in time.

`minting` is that sentence up to the agent, `reaper` from there to the end. Between them stands
nothing but the store: whatever crashes, what was begun there is found there and finished.
"""
