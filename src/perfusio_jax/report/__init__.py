"""Reports for people: what a model can do, with tables and figures."""
