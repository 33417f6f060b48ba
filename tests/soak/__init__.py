"""Hours of every kind of traffic against the real program, while faults arrive at random; then the books are balanced.

    python tests/soak [--seconds 300] [--seed N] [--help]          see `make soak`

It promises that every request is accounted for: answered rightly, or lost in a way that the program's own log
explains. It refuses to measure speed. The same seed gives the same clients and faults, though not the same timing.

material     the bytes that bodies are made of, known to both sides
application  what is served: it keeps a journal of each call that began and ended
connection   one client connection, as bytes
questions    the kinds of requests, and what is wrong with an answer
clients      the kinds of clients
service      the program under test, its log and its processes
faults       what is done to it
books        what became of each request, and whether that may be
run          one soak from start to end
"""
