"""VGG16 in float32 and in bfloat16, by the same schedule: is the accuracy the same?"""

import functools
from dataclasses import replace

from benchmarks import cifar, contest, runs, speed
from benchmarks.contest import Contestant, Course
from benchmarks.report import Result
from benchmarks.settings import Settings
from pipeline import presets
from trainer_module.config import ImageFeatures, NetworkConfig
from trainer_module.training.precision import BFLOAT16, FLOAT32

PART = "precision"
CONTESTANTS = tuple(
    Contestant(name, functools.partial(contest.plateau, strategy="lr_decay"), name)
    for name in (FLOAT32, BFLOAT16)
)
_TEST_IMAGES = 10_000


def measure(settings: Settings) -> Result:
    """Run what is missing, then compare."""
    course = _course(settings)
    common = course.settings(settings)
    finished = contest.run_missing(settings, PART, course, common, CONTESTANTS)
    rows = runs.compare(finished, BFLOAT16, FLOAT32, {"accuracy": 1.0})
    contest.draw(settings, PART, "VGG16", course, finished)
    return Result(PART, _method(course, settings), rows, common, contest.figure_file(PART))


def _course(settings: Settings) -> Course:
    preset = presets.cifar10()
    images, test_images, width, max_epochs = settings.images, _TEST_IMAGES, 0.25, 60
    if settings.quick:
        images, test_images, width, max_epochs = 256, 256, 0.05, 3
    config = replace(
        preset,
        features=ImageFeatures(height=32, width=32, channels=3),
        classes=tuple(map(str, range(10))),
        network=NetworkConfig(model="vgg16", width_multiplier=width),
        optimization=speed.OPTIMIZATION,
        schedule=replace(
            preset.schedule,
            actions=2,
            max_epochs=max_epochs,
            plateau=replace(preset.schedule.plateau, patience=3),
        ),
        loop=replace(preset.loop, batch_size=64),
    ).train_config()
    return contest.course_of(cifar.load(settings.data), config, images, test_images)


def _method(course: Course, settings: Settings) -> str:
    config, file = course.config, contest.runs_file(PART)
    schedule, optimization = config.schedule, config.optimization
    return (
        f"VGG16 at width {config.network.width_multiplier:g} on {len(course.training.y):,} of "
        f"CIFAR-10's 50,000 training images in batches of {config.loop.batch_size}, SGD with "
        f"momentum {optimization.momentum:g} and learning rate {optimization.learning_rate:g}, "
        f"which lr_decay divides by {schedule.factor:g} at a plateau (patience "
        f"{schedule.plateau.patience}, {schedule.actions} actions, at most {schedule.max_epochs} "
        f"epochs); {len(course.validation.y):,} others steer the schedule, "
        f"{len(course.test.y):,} test images judge the kept weights, the first "
        f"{len(course.curve.y):,} of them the curves. {contest.which_seeds(settings)}, with "
        "the same first weights and order for both; contestants take turns within a seed. Seconds "
        "hold tracing, training and validation, not the test evaluations. Every run: "
        f"[{file}]({file})."
    )
