"""Volumes, labels and prompts."""
