"""forkserver beside its peers, on the same work, in one run; see README.md in this folder."""
