"""A Terraform provider for the broker: a client of its admin API, and no more.

It needs the package `tf`, which the extra `terraform` installs.
"""
