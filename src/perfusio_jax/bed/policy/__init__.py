"""What to do next: the daily decision, the recommendation, the campaign, and why."""
