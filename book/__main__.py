"""`python -m book COMMAND`. Written so that an old Python can read it and be told that it is old."""

import sys

from book import setup

if __name__ == "__main__":
    setup.check_python()
    if sys.argv[1:] == ["setup"]:  # before anything is installed
        sys.exit(setup.main())

    from book.cli import main

    sys.exit(main())
