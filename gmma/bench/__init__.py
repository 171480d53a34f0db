"""`gmma bench`: tree against prompt-shared and flat rows."""
