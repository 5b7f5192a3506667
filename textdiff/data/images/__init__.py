"""Pictures, masks and sentences."""
