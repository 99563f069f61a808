"""Fuzz one reader in this process: `python -m tests.fuzz.run NAME SECONDS FOLDER`."""

import importlib
import sys
from pathlib import Path

import atheris

from trainer_module.util import environment

# Coverage is of what reads; TensorFlow and Beam would only slow it down.
INSTRUMENTED = ["components", "pipeline", "trainer_module", "PIL", "yaml", "json", "zipfile"]
LONGEST = 64 * 1024


def main(name: str, seconds: str, folder: str) -> None:
    """Begin with the seeds and what earlier runs kept; libFuzzer ends the process."""
    environment.prepare()
    with atheris.instrument_imports(include=INSTRUMENTED):
        reader = importlib.import_module(f"tests.fuzz.readers.{name}").reader()
    corpus = Path(folder, "corpus")
    for number, seed in enumerate(reader.seeds):
        reader.check(seed)
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "rss_limit_mb": reader.memory,
        "timeout": reader.patience,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
    }
    flags = [f"-{flag}={value}" for flag, value in arguments.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], reader.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
