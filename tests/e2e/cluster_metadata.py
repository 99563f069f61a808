"""The metadata store of the cluster: ML Metadata behind the backend's conversions."""

import json
import threading
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

SESSION = json.dumps({"Provider": "minio", "Params": {"fromEnv": "false"}})
Json = dict[str, Any]


class Metadata:
    """ML Metadata behind the backend's conversions (metadata/converter.go, client.go)."""

    def __init__(self, path: Path) -> None:
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = 3
        self._store, self._lock = MetadataStore(config), threading.Lock()

    def record(self, key: str, artifact: Json) -> int:
        """Records an output artifact; returns its id."""
        kind = artifact["type"]
        schema = kind.get("instanceSchema") or f"title: {kind['schemaTitle']}"
        made = metadata_store_pb2.Artifact(uri=artifact["uri"], state="LIVE")
        properties = {
            "display_name": key,
            "store_session_info": SESSION,
            **artifact.get("metadata", {}),
        }
        for name, value in properties.items():
            made.custom_properties[name].CopyFrom(_to_mlmd(name, value))
        with self._lock:
            made.type_id = self._store.put_artifact_type(
                metadata_store_pb2.ArtifactType(name=yaml.safe_load(schema)["title"])
            )
            return int(self._store.put_artifacts([made])[0])

    def artifact(self, identity: int) -> Json:
        """An artifact as the driver hands it to a later task: with an empty type."""
        with self._lock:
            (made,) = self._store.get_artifacts_by_id([identity])
        properties = (*made.properties.items(), *made.custom_properties.items())
        return {
            "name": str(made.id),
            "type": {"instanceSchema": ""},
            "uri": made.uri,
            "metadata": {name: _from_mlmd(value) for name, value in properties},
        }


def _to_mlmd(name: str, value: Any) -> metadata_store_pb2.Value:
    made = metadata_store_pb2.Value()
    if isinstance(value, bool):
        made.int_value = int(value)
    elif isinstance(value, int | float):
        made.double_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, list):
        json_format.ParseDict({"list": value}, made.struct_value)
    elif isinstance(value, dict):
        json_format.ParseDict({"struct": value}, made.struct_value)
    else:
        raise ValueError(f"unknown/unsupported value of {name}: {value}")
    return made


def _from_mlmd(value: metadata_store_pb2.Value) -> Any:
    kind = value.WhichOneof("value")
    if kind == "struct_value":
        return json_format.MessageToDict(value.struct_value)
    found = getattr(value, kind)
    return float(found) if kind == "int_value" else found
