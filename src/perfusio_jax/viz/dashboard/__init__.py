"""The local page: runs as a browser shows them, and the few things a person may ask from there.

A shell: it serves HTTP, knows accounts and sessions, and draws what it is given. What there is to
see comes from a `Watched` (`views.py`), which the command line fills from run folders; what a
person asks goes through `twin.loop.commands`, as the terminal's commands do.
"""
