"""What is wanted and what is allowed: objectives, criteria, constraints, Pareto fronts."""
