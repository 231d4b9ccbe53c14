"""Constants of a mechanism as a posterior: one model for all plants, sampled, checked and kept."""
