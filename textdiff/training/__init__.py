"""One loop for everything that learns."""
