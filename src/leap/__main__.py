"""`python -m leap`: the command line, where no `leap` is on the path."""

from leap.cli import main

if __name__ == "__main__":
    main()
