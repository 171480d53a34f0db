"""Image processing on the host, with the numbers of transformers' processors (PIL backend)."""
