"""Many runs on one device or many: streamed statistics, rows one by one, what a job will cost."""
