"""Training of an epoch: the noise scale is measured, and a batch too large for memory is cut."""

from typing import NamedTuple

import tensorflow as tf

from trainer_module.distributed import strategies
from trainer_module.training import noise
from trainer_module.training.batch import check_not_empty, cut_to, distributed
from trainer_module.training.callbacks import Callbacks
from trainer_module.training.checkpoint import Snapshot
from trainer_module.training.step import Steps
from trainer_module.util.checks import UserError, require


class Epoch(NamedTuple):
    """Result of an epoch."""

    metrics: dict[str, float]
    """Means over its examples, by name."""

    examples: int
    updates: int


class EpochTrainer:
    """Trains epoch by epoch.

    Attributes:
        micro_batch: Largest batch that a replica computes at once, in examples; halved where that
            does not fit in memory.
        noise: The last measurement of the simple noise scale.
    """

    def __init__(
        self,
        steps: Steps,
        callbacks: Callbacks,
        *,
        micro_batch: int | None,
        num_examples: int | None,
    ) -> None:
        """Takes what is trained; `num_examples` is checked unless it is None."""
        self.micro_batch = micro_batch
        self.noise = noise.NoiseState()
        self._steps = steps
        self._model, self._optimizer = steps.model, steps.optimizer
        self._strategy = steps.strategy
        self._callbacks = callbacks
        self._num_examples = num_examples
        self._fitting_batch = 0

    def train(self, batches: tf.data.Dataset, batch_size: int) -> Epoch:
        """Trains on all global batches, on micro-batches if a new size does not fit in memory.

        Raises:
            UserError: The batches have other sizes, or cannot be cut although they must be.
        """
        if batch_size == self._fitting_batch:
            return self._train(batches, batch_size)
        start, noise_before = Snapshot.take(0, self._model, self._optimizer), self.noise
        fits = True
        try:
            # Retried outside of an `except`, where the error would keep the tensors of the step.
            while (epoch := self._try(batches, batch_size, start)) is None:
                fits = False
                self._halve_micro_batch(batch_size)
                start.restore_model(self._model)
                start.restore_optimizer(self._optimizer)
                self.noise = noise_before
        except UserError as error:
            if fits:
                raise
            rule = f"batch {batch_size} does not fit in memory, and {error.rule}"
            raise UserError(rule, error.value, error.remedy) from error
        self._fitting_batch = batch_size
        return epoch

    def _try(self, batches: tf.data.Dataset, batch_size: int, start: Snapshot) -> Epoch | None:
        """Trains for an epoch from `start`; returns None if a worker's memory is too small."""
        if not strategies.has_several_workers(self._strategy):
            try:
                return self._train(batches, batch_size)
            except tf.errors.ResourceExhaustedError:
                return None
        # A step that fails on one worker breaks the connection of all: each first tries alone.
        micro_batch = self._cut_to(batch_size)
        elements = distributed(batches, self._strategy, micro_batch)
        fits = self._steps.gradients_fit(elements, micro=micro_batch is not None)
        if strategies.any_worker(not fits, self._strategy):
            return None
        # The trial moved averages and random states.
        start.restore_model(self._model)
        return self._train(batches, batch_size)

    def _train(self, batches: tf.data.Dataset, batch_size: int) -> Epoch:
        micro_batch = self._cut_to(batch_size)
        elements = distributed(batches, self._strategy, micro_batch)
        count = int(batches.cardinality().numpy())
        known = count if count >= 0 and micro_batch is None else None
        self.noise, probes = noise.due(self.noise, count if count > 0 else noise.EVERY)
        updates_before = int(self._optimizer.iterations.numpy())
        steps, whole, sums, norms = 0, 0, [], []
        for call in self._steps.train_epoch(
            elements, probes=probes, batches=known, micro=micro_batch is not None
        ):
            steps += call.steps
            whole += call.batches
            sums.append(call.sums)
            if len(sums) == 1 and self._fitting_batch != batch_size:
                self._check_batch_size(batch_size, whole, round(float(call.sums[-1])))
            if call.squared_norms is not None:
                norms.append(call.squared_norms)
            self._callbacks.notify("on_train_batch_end", steps, known)
        check_not_empty(bool(sums), "training_data")
        measurements = [noise.Measurement(*map(float, values)) for values in norms]
        self.noise = noise.measured(self.noise, measurements)
        updates = int(self._optimizer.iterations.numpy()) - updates_before
        examples = round(sum(float(value[-1]) for value in sums))
        self._check_batch_size(batch_size, whole, examples)
        self._check_num_examples(batch_size, examples)
        return Epoch(self._steps.means(sums), examples, updates)

    def _cut_to(self, batch_size: int) -> int | None:
        return cut_to(batch_size, self.micro_batch, int(self._strategy.num_replicas_in_sync))

    def _share(self, batch_size: int) -> int:
        """Returns the number of examples of a batch on a replica, rounded up."""
        return -(-batch_size // int(self._strategy.num_replicas_in_sync))

    def _halve_micro_batch(self, batch_size: int) -> None:
        size = self._cut_to(batch_size) or self._share(batch_size)
        require(
            size > 1,
            "a micro-batch of one example must fit",
            "out of memory",
            "Make the model or its inputs smaller.",
        )
        self.micro_batch = size // 2
        self._callbacks.notify(
            "on_message",
            f"batch {batch_size} does not fit in memory: "
            f"accumulating gradients over micro-batches of {self.micro_batch}",
        )

    def _check_batch_size(self, batch_size: int, batches: int, examples: int) -> None:
        require(
            (batches - 1) * batch_size < examples <= max(batches, 1) * batch_size,
            "training_data must give batches of the batch_size that it is called with, of which"
            " only the last may be smaller",
            f"{examples} examples in {batches} batches of {batch_size}",
            "Call .batch(batch_size) in it.",
        )

    def _check_num_examples(self, batch_size: int, examples: int) -> None:
        """Raises UserError unless an epoch had num_examples, but for a last batch dropped."""
        count = self._num_examples
        require(
            count is None or count - batch_size < examples <= count,
            "num_examples must be the number of training examples in an epoch",
            f"{count}, of which training_data gave {examples} in batches of {batch_size}",
            "Leave out num_examples to have them counted.",
        )
