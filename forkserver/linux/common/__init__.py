"""What every room is written with, and knows nothing of Linux: records, and text made safe."""
