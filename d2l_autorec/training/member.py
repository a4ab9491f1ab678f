"""One network at work: what a recipe sets up on a matrix of ratings.

References
----------
O. Kuchaiev, B. Ginsburg, "Training Deep AutoEncoders for Collaborative Filtering",
2017, arXiv:1708.01715, which masks the squared error. Y. Bengio, P. Lamblin, D.
Popovici, H. Larochelle, "Greedy Layer-Wise Training of Deep Networks", NIPS 2006.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..curve import Epoch
from ..errors import DeviceUnavailable
from ..fast import FastStep, SparseNetwork, predict_cells
from ..loop import Step, train_epochs
from .batches import SeededBatches
from .biases import Biases, normalizer_of, range_of
from .networks import draw_weights, network
from .optimizers import gluon_state, set_gluon_state
from .settings import Recipe

# How layers are trained to pass on what they get.
NUM_EPOCHS, BATCH_SIZE, LR = 200, 512, 0.003


def masked_rmse(predictions: mx.np.ndarray, ratings: mx.np.ndarray) -> mx.np.ndarray:
    """Compute the RMSE over observed cells, (1,), times their number: losses add up.

    The gradient is as long as at an error of 1, however small the errors are.
    """
    mean = mx.np.mean(mx.np.square(predictions - ratings), keepdims=True)
    # At an error of 0 the root has no derivative.
    return mx.np.sqrt(mean + 1e-12) * len(ratings)


class Member:
    """A network that is trained, alone or as one of an ensemble.

    Its arguments are those of `Training`, but for the seed, which is of `SeededBatches`
    and tells members apart.
    """

    def __init__(
        self,
        recipe: Recipe,
        train_mat: sp.csr_matrix,
        devices: Sequence[mx.Context],
        seed: Sequence[int],
        trained: int = 0,
        team: Any = None,
    ) -> None:
        self.recipe, self.train_mat, self.devices = recipe, train_mat, list(devices)
        self.seed = seed
        self.normalizer = normalizer_of(recipe, train_mat)
        learned = self.normalizer.learned(train_mat) if self.normalizer else train_mat
        rows = recipe.rows(learned)
        batch_size = min(recipe.batch_size or rows.shape[0], rows.shape[0])
        self.steps_per_epoch = rows.shape[0] / batch_size
        self.num_columns = rows.shape[1]  # those of other workers included
        args = rows, self.steps_per_epoch, train_mat
        self.shard = team.share_out(*args) if team else None
        self.workers = self.shard.workers if self.shard else None
        self.rows = self.shard.rows if self.shard else rows  # of this worker
        self.net = network(recipe, train_mat, self.rows.shape[1])
        self._initialize(float(rows.data.mean()))
        self.trainer = self._trainer(rows, batch_size)
        self.is_fast = FastStep.fits(self.trainer, self.devices)
        if self.is_fast:
            FastStep.spare_gradients(self.net)
        draw_weights(self.net, self.rows.shape[1], self.devices)
        self.step = self._step(rows.nnz / rows.shape[0])
        self.batches = SeededBatches(self.rows, batch_size, seed, self.step, trained)
        self.pretraining: Iterator[Epoch] = iter(())
        if (num_epochs := recipe.pretrain_epochs) and not trained:
            layer, *_ = recipe.num_hidden  # type: ignore[misc]
            first = recipe.changed(num_hidden=layer, pretrain_epochs=0)
            first = first.changed(num_epochs=num_epochs)
            shallow = Member(first, train_mat, devices, seed, team=team)
            self.pretraining = self._pretrain(shallow)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the parameters, as `Training.parameters` does."""
        own = self._parameters()
        return self.shard.gather(own) if self.shard else own

    def state(self) -> dict[str, np.ndarray]:
        """Return the optimizer's state, as `Training.state` does."""
        own = self._state()
        return self.shard.gather(own) if self.shard else own

    def _parameters(self) -> dict[str, np.ndarray]:
        named = self.net._collect_params_with_prefix().items()
        return {name: array.list_data()[0].asnumpy() for name, array in named}

    def _state(self) -> dict[str, np.ndarray]:
        if isinstance(self.step, FastStep):
            return self.step.state()
        return gluon_state(self.trainer)

    def load(
        self,
        parameters: Mapping[str, np.ndarray],
        state: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Go on from parameters and a state, as `Training.load` does."""
        if self.shard:
            parameters = self.shard.scatter(parameters, self._parameters())
            if state is not None:
                state = self.shard.scatter(state, self._state())
        for name, parameter in self.net._collect_params_with_prefix().items():
            parameter.set_data(mx.np.array(parameters[name]))
        if isinstance(self.step, FastStep):
            self.step.read()
            if state is not None:
                self.step.set_state(state)
        elif state is not None:
            set_gluon_state(self.trainer, state)

    def predict(self, cells: sp.csr_matrix) -> np.ndarray:
        """Predict the ratings of cells, as `Training.predict` does."""
        # Each holds its place in the answer: a user-based network has another order.
        numbers = np.arange(cells.nnz), cells.indices, cells.indptr
        asked = self.recipe.rows(sp.csr_matrix(numbers, cells.shape))
        first = self.shard.start if self.shard else 0
        outputs = np.empty(cells.nnz, np.float32)
        outputs[asked.data] = predict_cells(
            self._predictor, self.rows, asked, self.devices, first
        )
        at = cells.tocoo()
        return self._ratings(outputs, at.col, at.row)

    def _ratings(
        self, outputs: np.ndarray, users: np.ndarray, items: np.ndarray
    ) -> np.ndarray:
        """Turn outputs at cells into ratings, with the rule for cold ones."""
        recipe, train_mat = self.recipe, self.train_mat
        cold = (train_mat.getnnz(1) == 0)[items] | (train_mat.getnnz(0) == 0)[users]
        if self.normalizer:
            if recipe.residual:
                outputs[cold] = 0
            levels = self.normalizer.at(users, items)
            outputs = self.normalizer.restore(outputs, levels)
            if recipe.clip:
                outputs = outputs.clip(*range_of(train_mat))
        if recipe.cold == "biases":
            outputs[cold] = self.biases.at(users[cold], items[cold])
        elif recipe.cold is not None:
            mean = recipe.cold == "mean"
            outputs[cold] = train_mat.data.mean() if mean else recipe.cold
        return outputs

    @cached_property
    def biases(self) -> Biases:
        """What biases alone predict, for cold users and items."""
        own = self.normalizer
        return own if isinstance(own, Biases) else Biases(self.train_mat)

    @property
    def _predictor(self) -> SparseNetwork | gluon.Block:
        if isinstance(self.step, FastStep):
            return self.step.sparse
        on_cpu = self.devices[0].device_type == "cpu"
        return SparseNetwork(self.net) if on_cpu else self.net

    def _initialize(self, mean: float) -> None:
        """Say how to draw the weights; the mean is that of what is learned."""
        recipe = self.recipe
        # One layer as in the book; through several, weights that small pass nothing on.
        shallow = isinstance(recipe.num_hidden, int)
        start = mx.init.Normal(0.01) if shallow else mx.init.Xavier()
        if recipe.from_mean:
            self.net.decoder.bias.init = mx.init.Constant(mean)
        if self.shard:
            self.net.encoder.weight.init = self.shard.initializer(start, axis=1)
            self.net.decoder.weight.init = self.shard.initializer(start, axis=0)
        self.net.initialize(start, self.devices)

    def _trainer(self, rows: sp.csr_matrix, batch_size: int) -> gluon.Trainer:
        recipe = self.recipe
        settings: dict[str, Any] = {"learning_rate": recipe.lr, "wd": recipe.wd}
        if recipe.schedule == "cosine":
            # An incomplete batch waits for the next epoch.
            num_steps = recipe.num_epochs * rows.shape[0] // batch_size
            schedule = mx.lr_scheduler.CosineScheduler(num_steps, recipe.lr)
            settings["lr_scheduler"] = schedule
        if recipe.loss == "paper":
            # Twice the number of ratings is what the objective is divided by.
            settings["wd"] = recipe.penalty(self.train_mat) / (2 * rows.nnz)
            for parameter in self.net.collect_params(".*bias").values():
                parameter.wd_mult = 0.0
        return gluon.Trainer(
            self.net.collect_params(),
            recipe.optimizer,
            settings,
            update_on_kvstore=False,
        )

    def _step(self, ratings_per_row: float) -> Step:
        """Make the fast step where it fits, else the book's."""
        recipe = self.recipe
        loss = masked_rmse if recipe.loss == "rmse" else gluon.loss.L2Loss()
        mean_over = self.num_columns if recipe.loss == "book" else ratings_per_row
        args = self.net, loss, self.trainer, self.devices, mean_over
        if self.is_fast:
            return FastStep(*args, self.workers, recipe.leave_one_out)
        if recipe.leave_one_out:
            names = ", ".join(map(str, self.devices))
            raise DeviceUnavailable(f"leave_one_out needs one CPU, not {names}")
        return Step(*args)

    def _pretrain(self, shallow: "Member") -> Iterator[Epoch]:
        """Train one hidden layer, and start the deep network where it ended.

        The layers between the first and the last one are trained to pass the shallow
        network's hidden layer, (num_rows, num_hidden), on unchanged.
        """
        yield from train_epochs(
            shallow.batches, shallow.step, shallow.recipe.num_epochs, lambda: None
        )
        codes = SparseNetwork(shallow.net, self.workers).encode_all(self.rows)
        batch_size = min(BATCH_SIZE, len(codes))
        num_steps = NUM_EPOCHS * len(codes) // batch_size
        schedule = mx.lr_scheduler.CosineScheduler(num_steps, LR)
        settings = {"learning_rate": LR, "lr_scheduler": schedule}
        between = self.net.deeper
        trainer = gluon.Trainer(between.collect_params(), "adam", settings)
        step = Step(between, gluon.loss.L2Loss(), trainer, self.devices)
        batches = SeededBatches(sp.csr_matrix(codes), batch_size, self.seed, step)
        for _ in train_epochs(batches, step, NUM_EPOCHS, lambda: None):
            pass
        for name in ("encoder", "decoder"):
            layer, trained = getattr(self.net, name), getattr(shallow.net, name)
            layer.weight.set_data(trained.weight.list_data()[0])
            layer.bias.set_data(trained.bias.list_data()[0])
        if isinstance(self.step, FastStep):
            self.step.read()
