"""The merge methods, one in each file; files with an underscore hold what several need."""
