"""The trail that proves itself."""
