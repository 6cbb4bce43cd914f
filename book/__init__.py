"""The press: turns the notebooks of this repository into the book. Run `python -m book --help`."""
