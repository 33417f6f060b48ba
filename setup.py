"""The optional extension of the package; everything else is in pyproject.toml.

Where it cannot be built, the installation succeeds without it, and the Python code serves. With
``FORKSERVER_ACCELERATOR=off`` it is left out, and the wheel is one for every interpreter.
"""

import os
import sysconfig
from glob import glob

from setuptools import Extension, setup

FOLDER = "forkserver/server/wsgi/accelerator"
EXCHANGE = Extension(
    "forkserver.server.wsgi.accelerator._exchange",
    sources=sorted(glob(f"{FOLDER}/*.c")),
    depends=[f"{FOLDER}/exchange.h"],
    extra_compile_args=["-std=gnu11", "-fvisibility=hidden"],
    optional=True,
)

# It relies on the GIL.
LEFT_OUT = sysconfig.get_config_var("Py_GIL_DISABLED") or os.environ.get("FORKSERVER_ACCELERATOR", "").lower() == "off"
setup(ext_modules=[] if LEFT_OUT else [EXCHANGE])
