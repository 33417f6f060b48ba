"""Where the threads of a worker are: for the log, for a caller that asks, and sampled again and again for a profile"""
