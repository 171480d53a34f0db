"""Tokenizers, and the text around questions, thoughts and answers."""
