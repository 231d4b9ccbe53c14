"""The demonstration: a virtual reactor driven through files, and what it proves."""
