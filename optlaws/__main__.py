"""`python -m optlaws` is the same as the command `optlaws`."""

from optlaws.cli import main

if __name__ == "__main__":
    main()
