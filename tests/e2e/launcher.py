"""The launcher of Kubeflow Pipelines in a pod: fills in placeholders and runs the user's command.

Usage: launcher.py --executor_input JSON --component_spec JSON -- COMMAND ARGUMENT...

It has no signal handler. The command's output passes through it, so that the command's stdout is a
broken pipe once the launcher is gone.
"""

import json
import subprocess
import sys

STAGED = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}


def local_path(uri):
    for scheme, folder in STAGED.items():
        if uri.startswith(scheme):
            return folder + uri[len(scheme) :]
    raise SystemExit(f"failed to generate local path for URI {uri}: unsupported storage scheme")


def text(value):
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value)


def placeholders(given):
    found = {}
    for side in ("inputs", "outputs"):
        for name, listed in given.get(side, {}).get("artifacts", {}).items():
            uri = listed["artifacts"][0]["uri"]
            found[f"{{{{$.{side}.artifacts['{name}'].uri}}}}"] = uri
            found[f"{{{{$.{side}.artifacts['{name}'].path}}}}"] = local_path(uri)
    for name, value in given.get("inputs", {}).get("parameterValues", {}).items():
        found[f"{{{{$.inputs.parameters['{name}']}}}}"] = text(value)
    return found


def main():
    options, command = sys.argv[1:5], sys.argv[6:]
    given, component = json.loads(options[1]), json.loads(options[3])
    values = given.setdefault("inputs", {}).setdefault("parameterValues", {})
    for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if "defaultValue" in spec:
            values.setdefault(name, spec["defaultValue"])
    whole = json.dumps(given, separators=(",", ":"))
    filled = [command[0].replace("{{$}}", whole)]
    for word in command[1:]:
        word = word.replace("{{$}}", whole)
        for placeholder, value in placeholders(given).items():
            word = word.replace(placeholder, value)
        filled.append(word)
    with subprocess.Popen(filled, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
    if process.returncode:
        raise SystemExit(f"failed to execute component: exit status {process.returncode}")


main()
