"""What people use instead of the gateway, each with the least that makes it comparable.

All judge by the same 20 rules and swap the Authorization header. None keeps an audit trail, looks
for the credential in responses, or knows of a revocation.
"""
