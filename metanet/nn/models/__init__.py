"""Metanetworks, a file each: what is decorated by ``register`` here is found by itself."""
