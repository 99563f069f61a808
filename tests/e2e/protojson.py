"""Parses JSON as Go's protojson does, with the newest protocol buffers of Kubeflow Pipelines.

The protocol buffers need another protobuf than TFX, so that this file is also a program: it runs in
the environment of the newest kfp client, and answers a line of JSON with a line of JSON.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

PYTHON = Path(__file__).parents[2] / ".venv-kfp" / "bin" / "python"


class Parser:
    """Parses messages in a process of its own."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [PYTHON, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, message, value):
        """Returns the canonical JSON value of a message.

        Args:
            message: Name of the message, such as PipelineSpec.
            value: JSON text, or a JSON value.

        Raises:
            ValueError: protojson would refuse it.
        """
        text = value if isinstance(value, str) else json.dumps(value)
        with self._lock:
            print(json.dumps([message, text]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        parsed, error = json.loads(line)
        if error:
            raise ValueError(f"{message}: {error}")
        return parsed

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def _unique(pairs):
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"duplicate field {max(names, key=names.count)!r}")
    return dict(pairs)


def _refuse(constant):
    raise ValueError(f"invalid value {constant}")


def main():
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    for line in sys.stdin:
        name, text = json.loads(line)
        parsed, error = None, None
        try:
            module = (
                pipeline_spec_pb2
                if hasattr(pipeline_spec_pb2, name)
                else kubernetes_executor_config_pb2
            )
            message = getattr(module, name)()
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
            json_format.ParseDict(value, message)
            parsed = json_format.MessageToDict(message)
        except (ValueError, json_format.ParseError) as refused:
            error = str(refused)
        print(json.dumps([parsed, error]), flush=True)


if __name__ == "__main__":
    main()
