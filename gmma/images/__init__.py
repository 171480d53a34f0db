"""What each ported family does to images before its network sees them; host code, the numbers of
transformers' own processors (their PIL backend)."""
