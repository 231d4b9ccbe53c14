"""What was read, decided and done: journal, audit trail, keys, locks, files of a run."""
