"""The library that the chapters of AI from the Ground Up build.

Every module here is generated from the chapter of the same name, except four that are
written by hand: `datasets`, `plotting`, `checks` and `artifacts`.
"""
