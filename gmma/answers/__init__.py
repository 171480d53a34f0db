"""Readers of the texts of answers: boxes, points, paths, mathematics."""
