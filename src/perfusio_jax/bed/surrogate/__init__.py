"""What the search believes about a candidate: processes, ensembles, roll-outs of a model."""
