"""Llama and its likes: text alone."""
