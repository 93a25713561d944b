"""The composition root: the only package that knows concrete classes.

`home` knows what lies where on disk, `broker` puts the parts together, `server` runs them.
"""
