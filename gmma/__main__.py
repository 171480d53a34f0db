"""`python -m gmma` is the command `gmma`."""

from gmma.cli import main

main()
