"""`python -m arkjax` is the `arkjax` command."""

from arkjax.cli import entry

if __name__ == "__main__":
    entry()
