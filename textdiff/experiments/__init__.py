"""A configuration in, a record out."""
