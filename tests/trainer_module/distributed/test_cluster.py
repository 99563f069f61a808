import json

import pytest

from trainer_module.distributed.cluster import Place, locate

ADDRESSES = ["127.0.0.1:1", "127.0.0.1:2"]
HOSTS = [("127.0.0.1", 1), ("127.0.0.1", 2)]


def tf_config(workers: list[str], index: object, kind: str = "worker") -> str:
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": kind, "index": index}})


def test_without_tf_config_there_is_no_other():
    assert locate("") is None
    assert locate(tf_config(ADDRESSES[:1], 0)) is None


def test_tf_config_says_which_worker_this_is():
    place = locate(tf_config(ADDRESSES, 1))
    assert place == Place("worker 1", dict(zip(("worker 0", "worker 1"), HOSTS, strict=True)))
    assert place.chief == "worker 0"
    assert not place.is_chief
    cluster = {"worker": ["w:3", "[::1]:4"], "chief": ["c:1"]}
    place = locate(json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}}))
    assert place.is_chief
    assert len(place.addresses) == 3
    assert place.addresses["worker 1"] == ("::1", 4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{cluster", "must be JSON"),
        pytest.param("[" * 100_000, "must be JSON", id="deep"),
        pytest.param("1" * 5000, "must be JSON", id="a long number"),
        pytest.param(
            json.dumps({"cluster": {"x" * 9000: ["a:1"]}}), "kinds chief and worker", id="long"
        ),
        ("[]", "must be a JSON object"),
        ('{"cluster": {"worker": "127.0.0.1:1"}}', "must list the addresses"),
        ('{"cluster": ["127.0.0.1:1"]}', "must list the addresses"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}}',
            "kinds chief and worker only, got 'ps'",
        ),
        ('{"cluster": {"chief": ["a:1", "b:1"]}}', "have one chief at most"),
        (tf_config(["a:1", "a:1"], 0), "an address of its own"),
        (tf_config(["a:1", "b"], 0), "must be HOST:PORT, got 'b'"),
        (tf_config(["a:1", "b:99999"], 0), "must be HOST:PORT, got 'b:99999'"),
        ('{"cluster": {"worker": ["a:1", {}]}}', "must be HOST:PORT"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "which of its tasks this is, got 'None'"),
        (tf_config(ADDRESSES, 2), "which of its tasks this is"),
        (tf_config(ADDRESSES, True), "which of its tasks this is"),
        (tf_config(ADDRESSES, "0"), "which of its tasks this is"),
        (tf_config(ADDRESSES, 0, "chief"), "which of its tasks this is"),
    ],
)
def test_a_tf_config_that_is_none_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        locate(text)
    assert len(str(error.value)) < 2000
