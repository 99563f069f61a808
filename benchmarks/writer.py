"""A plain writer: the images of a folder into one TFRecord file, as TensorFlow's guide does it.

`python -m benchmarks.writer FOLDER FILE [decode]` prints the seconds it took, without imports.
"""

import sys
import time
from pathlib import Path

import tensorflow as tf

import schemas


def write(folder: Path, file: Path, decode: bool = False) -> None:
    """Writes the features that ImageExampleGen writes, with its compression.

    Args:
        folder: Folder by class.
        file: File to write.
        decode: Decode each image first, as ImageExampleGen does, one at a time.
    """
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(str(file), options) as writer:
        for path in sorted(folder.glob("*/*.jpg")):
            content = path.read_bytes()
            if decode:
                tf.io.decode_image(content, channels=3, expand_animations=False)
            values = {
                schemas.IMAGE: content,
                schemas.LABEL: path.parent.name.encode(),
                schemas.FILE_NAME: str(path.relative_to(folder)).encode(),
            }
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for name, value in values.items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


if __name__ == "__main__":
    source, target, *rest = sys.argv[1:]
    began = time.monotonic()
    write(Path(source), Path(target), bool(rest))
    print(time.monotonic() - began)
