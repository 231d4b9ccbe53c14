"""Who is told: alarms, their desk and the channels they leave by."""
