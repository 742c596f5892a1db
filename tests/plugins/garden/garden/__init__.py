"""A package of somebody's own that adds one of everything to metanet."""
