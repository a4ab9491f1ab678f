"""An autoencoder on sparse rows: what touches no rating is not computed.

With the encoder's weights stored as users x hidden units, a rating touches one
contiguous row of them, as it does of the decoder's. So a product takes time for ratings
x hidden units, and nothing takes time for items x users.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx, one_at_a_time
from ..data import checked, dense
from ..errors import DataError
from ..evaluators import reconstruct
from ..model import AutoRec
from .arrays import view
from .hidden import hidden_layers
from .products import Cells, by_columns, multiply, outputs_at

_BATCH_SIZE = 256  # rows that are predicted at a time


class Workers:
    """Those who train together: here one process, which has all columns."""

    def sum(self, array: np.ndarray) -> None:
        """Replace a contiguous float32 array by its sum over all workers."""

    def span(self, size: int) -> tuple[int, int]:
        """Return how many of a batch's ratings come before this worker's, and all."""
        return 0, size


class SparseNetwork:
    """An autoencoder whose first and last layers are computed at ratings alone.

    Parameters
    ----------
    net : AutoRec
        Or a `DeepAutoRec`, with its weights on a CPU.
    workers : Workers
        With the other columns of each row.

    Attributes
    ----------
    encoder_weight : numpy.ndarray of float32, shape (num_columns, num_hidden)
        A copy of the network's, transposed: see `write`.
    encoder_bias, decoder_weight, decoder_bias : numpy.ndarray of float32
        The network's own memory.
    """

    def __init__(self, net: AutoRec, workers: Workers | None = None) -> None:
        self.net, self.workers = net, workers or Workers()
        encoder, decoder = net.encoder, net.decoder
        self._encoder, self.encoder_bias, self.decoder_weight, self.decoder_bias = (
            view(parameter.list_data()[0])
            for parameter in (
                encoder.weight,
                encoder.bias,
                decoder.weight,
                decoder.bias,
            )
        )
        self.encoder_weight = self._encoder.T.copy()
        self.layers = hidden_layers(net)

    def read(self) -> None:
        """Read the encoder's weights, which somebody has written to, again."""
        self.encoder_weight[...] = self._encoder.T

    def write(self) -> None:
        """Write the encoder's weights into the Gluon network."""
        self._encoder[...] = self.encoder_weight.T

    def sums(self, inputs: Cells) -> np.ndarray:
        """Compute the encoder's sums of scaled inputs: (num_rows, num_hidden)."""
        sums = multiply(inputs, self.encoder_weight)
        self.workers.sum(sums)
        sums += self.encoder_bias
        return sums

    def scaled(self, cells: Cells) -> np.ndarray:
        """Multiply ratings by their rows' factors, if the network has any."""
        scaling = getattr(self.net, "scaling", None)
        if not scaling:
            return cells.ratings
        counts = np.bincount(cells.rows, minlength=cells.num_rows).astype(np.float32)
        self.workers.sum(counts)
        return np.asarray(cells.ratings * scaling.factors(counts)[cells.rows])

    @one_at_a_time
    def encode(self, rows: sp.csr_matrix) -> np.ndarray:
        """Compute the last hidden layer of rows of ratings: (num_rows, num_units)."""
        cells = by_columns(rows)
        inputs = cells._replace(ratings=self.scaled(cells))
        return self.layers.predict(self.sums(inputs))

    def encode_all(self, rows: sp.csr_matrix) -> np.ndarray:
        """Do so for any number of rows, some at a time."""
        starts = range(0, rows.shape[0], _BATCH_SIZE)
        return np.concatenate([self.encode(rows[i : i + _BATCH_SIZE]) for i in starts])

    def decode(self, hidden: np.ndarray, cells: Cells) -> np.ndarray:
        """Compute the decoder's outputs at cells, short of its activation."""
        return outputs_at(cells, hidden, self.decoder_weight, self.decoder_bias)

    @one_at_a_time
    def predict(self, rows: sp.csr_matrix, cells: sp.csr_matrix) -> np.ndarray:
        """Reconstruct rows at some cells: (num_cells,), column by column."""
        outputs = self.decode(self.encode(rows), by_columns(cells))
        act = self.net.decoder.act
        if not act or not outputs.size:  # MXNet computes nothing on empty arrays
            return outputs
        return np.asarray(act(mx.np.array(outputs)).asnumpy())


def predict_cells(
    net: gluon.Block | SparseNetwork,
    train_mat: sp.csr_matrix,
    cells: sp.csr_matrix,
    devices: Sequence[mx.Context],
    first_column: int = 0,
) -> np.ndarray:
    """Reconstruct single cells of the rating matrix.

    Parameters
    ----------
    net : SparseNetwork or mxnet.gluon.Block
        A Gluon network computes whole rows, whatever it is.
    train_mat : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
        What the predictions are made from; of several workers, this one's columns.
    cells : scipy.sparse.csr_matrix
        The cells are those that it stores, the same ones for all workers; rows without
        any are not reconstructed.
    devices : sequence of mxnet.Context
        Where a Gluon network's parameters are.
    first_column : int
        Of `train_mat`, in `cells`.

    Returns
    -------
    numpy.ndarray of float32, shape (num_cells,)
        In the order in which the cells are stored.

    Raises
    ------
    DataError
        If an index lies outside its matrix, or the shapes do not fit.
    """
    alone = type(getattr(net, "workers", Workers())) is Workers
    axes = 2 if alone else 1  # of several workers, the cells are in all their columns
    if checked(cells).shape[:axes] != checked(train_mat).shape[:axes]:
        raise DataError(f"cells of {cells.shape} in a matrix of {train_mat.shape}")
    # Each cell holds its place in the answer: a batch lists its cells by column.
    places = sp.csr_matrix(
        (np.arange(cells.nnz), cells.indices, cells.indptr), cells.shape
    )[:, first_column : first_column + train_mat.shape[1]]
    rows = np.flatnonzero(np.diff(cells.indptr))
    predicted = np.zeros(cells.nnz, np.float32)
    for start in range(0, len(rows), _BATCH_SIZE):
        batch = rows[start : start + _BATCH_SIZE]
        asked = places[batch]
        if isinstance(net, SparseNetwork):
            found = net.predict(train_mat[batch], asked)
        else:
            found = _predict_dense(net, train_mat[batch], asked, devices)
        predicted[asked.tocsc().data] = found
    if isinstance(net, SparseNetwork):
        net.workers.sum(predicted)
    return predicted


def _predict_dense(
    net: gluon.Block,
    rows: sp.csr_matrix,
    cells: sp.csr_matrix,
    devices: Sequence[mx.Context],
) -> np.ndarray:
    """Reconstruct whole rows, and pick the cells, column by column."""
    (outputs,) = reconstruct(net, [dense(rows)], devices)
    at = cells.tocsc().tocoo()
    return np.asarray(outputs[at.row, at.col])
