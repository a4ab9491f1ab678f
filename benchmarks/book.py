"""The chapter's way, as a script: d2l's functions, dense matrices, Gluon's loaders.

``D2L_AUTOREC_DATA=... python book.py`` does what the chapter's cells do, in our words.
Three things are worked around, or it would not run: NumPy 2, by importing the package
before MXNet; the download, whose server's certificate has lapsed; and the list of
devices, which is empty without a GPU.
"""

from typing import Any

import matplotlib

matplotlib.use("Agg")
import d2l_autorec  # noqa: E402, F401, I001
from d2l import mxnet as d2l  # noqa: E402
from mxnet import autograd, gluon, init, np, npx, random  # noqa: E402

npx.set_np()
DEVICES = d2l.try_all_gpus() or [npx.cpu()]


class Net(gluon.nn.Block):
    """The chapter's network."""

    def __init__(self, num_hidden: int, num_users: int) -> None:
        super().__init__()
        self.layers = gluon.nn.Sequential()
        self.layers.add(
            gluon.nn.Dense(num_hidden, activation="sigmoid"),
            gluon.nn.Dropout(0.05),
            gluon.nn.Dense(num_users),
        )

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Reconstruct; while training, only what was observed."""
        outputs = self.layers(inputs)
        return outputs * np.sign(inputs) if autograd.is_training() else outputs


def test_rmse(net: Net, batches: Any, test_mat: np.ndarray, devices: Any) -> float:
    """Score the reconstruction of all batches at the test ratings' cells."""
    outputs = np.concatenate([net(b.as_in_ctx(devices[0])) for b in batches])
    error = np.sign(test_mat) * (outputs - test_mat)
    found = float(np.sqrt((error**2).sum() / np.sign(test_mat).sum()))
    test_rmse.last = found  # type: ignore[attr-defined]
    return found


def set_up(
    num_users: int,
    train_mat: np.ndarray,
    num_hidden: int = 500,
    batch_size: int = 256,
    test_batch_size: int = 1024,
) -> tuple[Any, ...]:
    """Make what d2l's training loop takes, up to the trainer."""
    workers = d2l.get_dataloader_workers()
    train_iter = gluon.data.DataLoader(
        train_mat,
        batch_size,
        shuffle=True,
        last_batch="rollover",
        num_workers=workers,
    )
    in_order = gluon.data.DataLoader(
        train_mat, test_batch_size, last_batch="keep", num_workers=workers
    )
    net = Net(num_hidden, num_users)
    net.initialize(init.Normal(0.01), ctx=DEVICES, force_reinit=True)
    trainer = gluon.Trainer(
        net.collect_params(), "adam", {"learning_rate": 0.002, "wd": 1e-5}
    )
    return net, train_iter, in_order, gluon.loss.L2Loss(), trainer


def run(training: tuple[Any, ...], test_mat: np.ndarray, num_epochs: int) -> float:
    """Train with d2l's loop; return the last test RMSE."""
    d2l.train_recsys_rating(
        *training, num_epochs, DEVICES, test_rmse, inter_mat=test_mat
    )
    return test_rmse.last  # type: ignore[attr-defined]


def main() -> None:
    """Do the whole chapter."""
    from d2l_autorec.ratings import dataset_folder

    random.seed(0)
    with dataset_folder("ml-100k") as folder:
        d2l.download_extract = lambda *args: str(folder)
        data, num_users, num_items = d2l.read_data_ml100k()
    train_data, test_data = d2l.split_data_ml100k(data, num_users, num_items)
    train_mat, test_mat = (
        d2l.load_data_ml100k(part, num_users, num_items)[3]
        for part in (train_data, test_data)
    )
    run(set_up(num_users, train_mat), test_mat, num_epochs=25)


if __name__ == "__main__":
    main()
