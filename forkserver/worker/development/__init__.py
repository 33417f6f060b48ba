"""What helps while an application is written: its files are watched, and what is wrong with it is shown."""
