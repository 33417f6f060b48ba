"""What every room is written with, and knows nothing of Linux: records, text made safe, and the process's title."""
