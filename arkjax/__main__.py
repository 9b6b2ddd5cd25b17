"""`python -m arkjax` is the `arkjax` command."""

import sys

from arkjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
