"""Process 1 of a pod, as Argo's emissary: starts the launcher, forwards signals, waits.

The launcher has a process group of its own, and signals go to all of it. Its end is noticed once a
second; when process 1 exits, the kernel kills whatever is left in the container.
"""

import os
import signal
import subprocess
import sys
import time

launcher = subprocess.Popen(sys.argv[1:], preexec_fn=os.setpgrp)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.killpg(launcher.pid, number))
while launcher.poll() is None:
    time.sleep(1)
sys.exit(launcher.returncode if launcher.returncode >= 0 else 128 - launcher.returncode)
