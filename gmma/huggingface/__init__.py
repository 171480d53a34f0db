"""Machinery of Hugging Face directories: keys, name tables, weights, tokenizers."""
