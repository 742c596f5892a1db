"""The merge methods, one in each file: a new file registers itself, names with an underscore are help."""
