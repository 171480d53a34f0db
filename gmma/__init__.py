"""gmma: GRPO-MA, K thoughts answered M times each, for vision-language models on TPU.

Importing this package imports no JAX, so that reward workers start fast.
"""

__version__ = "0.1.0"
