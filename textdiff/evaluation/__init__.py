"""Scores, and the questions that are asked of a trained model."""
