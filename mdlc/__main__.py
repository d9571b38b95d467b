"""python -m mdlc: the command line."""

from mdlc.cli import main

main()
