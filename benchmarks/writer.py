"""The plain writer: pictures of a folder into one TFRecord file, as TensorFlow's guide does it.

`python -m benchmarks.writer FOLDER FILE [decode]` prints the seconds it took, imports apart.
"""

import sys
import time
from pathlib import Path

import tensorflow as tf

import schemas


def write(folder: Path, file: Path, decode: bool = False) -> None:
    """Write the features that ImageExampleGen writes, with its compression.

    Args:
        folder: Folder by class.
        file: File to write.
        decode: Decode each picture first, as ImageExampleGen does, one at a time.
    """
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(str(file), options) as writer:
        for path in sorted(folder.glob("*/*.jpg")):
            content = path.read_bytes()
            if decode:
                tf.io.decode_image(content, channels=3, expand_animations=False)
            feature = {
                schemas.IMAGE: _bytes(content),
                schemas.LABEL: _bytes(path.parent.name.encode()),
                schemas.FILE_NAME: _bytes(str(path.relative_to(folder)).encode()),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def main() -> None:
    """Write once."""
    folder, file, *decode = sys.argv[1:]
    began = time.monotonic()
    write(Path(folder), Path(file), bool(decode))
    print(time.monotonic() - began)


if __name__ == "__main__":
    main()
