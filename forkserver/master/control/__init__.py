"""The other end of forkserverctl's socket: protocol, commands, and callers that wait for a reload."""
