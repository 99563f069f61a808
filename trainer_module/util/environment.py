"""Environment variables that must be set before TensorFlow is first imported."""

import os


def prepare(verbose: bool = False) -> None:
    """Sets Keras 3, how much libraries print, and a share of the GPU.

    Importing TensorFlow Transform sets TF_USE_LEGACY_KERAS=1 where it is unset, and which Keras
    `tf.keras` is then depends on the order of imports; setting it here, first, settles that.

    Args:
        verbose: Whether TensorFlow's C++ runtime prints its notes to stderr, and processes that are
            started later the warnings of libraries about their own future.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "0"
    # Servable's process needs some of the GPU's memory beside this one.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0" if verbose else "3"
    if not verbose:
        # Beam's workers have no log file.
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
