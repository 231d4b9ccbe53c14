"""Files on a disk as a source, a log and a campaign."""
