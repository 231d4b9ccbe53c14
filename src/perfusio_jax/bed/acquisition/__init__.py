"""What a candidate is worth trying: closed forms, Monte Carlo forms, many objectives."""
