"""Copies, one a host, of models, records and images in a bucket or on the Hugging Face Hub."""
