"""The book: what `make docs` does beyond MkDocs.

`hooks.py` adds pages made from elsewhere, `api.py` those of the public names, `tutorials.py` those
of the example scripts, whose pictures `python -m docs.book` draws first.
"""
