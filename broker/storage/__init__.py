"""Durable records: grants, replay claims, enrolled keys."""
