"""The two systems, their parts, and the networks they are compared with."""
