"""Start a program the way systemd starts a socket-activated service: its listeners are descriptors 3, 4, ...

Usage: activate.py FD[,FD...] PROGRAM [ARGUMENT...]. LISTEN_PID must be the pid of the program itself, so it can only be
set between fork and exec; this file is what runs there. Source: sd_listen_fds(3).
"""

import fcntl
import os
import sys

FIRST = 3


def main() -> None:
    given = [int(number) for number in sys.argv[1].split(",") if number]
    # Out of the way first: a given descriptor may itself be 3.
    aside = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, FIRST + 100) for number in given]
    for place, number in enumerate(aside, FIRST):
        os.dup2(number, place, inheritable=True)
    for number in given:
        if not FIRST <= number < FIRST + len(given):
            os.set_inheritable(number, False)
    if given:
        os.environ["LISTEN_FDS"] = str(len(given))
        os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(sys.argv[2], sys.argv[2:])


main()
