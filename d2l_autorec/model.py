"""AutoRec: an autoencoder that fills in a column of the rating matrix.

References
----------
S. Sedhain, A. K. Menon, S. Sanner, L. Xie, "AutoRec: Autoencoders Meet Collaborative
Filtering", WWW 2015. *Dive into Deep Learning*, "AutoRec: Rating Prediction with
Autoencoders".
"""

from ._mxnet import autograd, gluon, np


class AutoRec(gluon.nn.Block):
    r"""The item-based AutoRec of the book.

    Parameters
    ----------
    num_hidden : int
        Units of the hidden layer.
    num_users : int
        Length of an input row: the ratings of one item by all users.
    dropout : float
        Share of the hidden units that training drops.

    Notes
    -----
    With :math:`R_{*i}` the ratings of item *i*, 0 where there is none, the
    reconstruction is

    .. math:: h(R_{*i}) = W \cdot \sigma(V R_{*i} + \mu) + b.

    While training, the output is 0 at unobserved cells, which then have neither loss
    nor gradient. The mask is the sign of the input, so every rating has to be positive.
    """

    def __init__(self, num_hidden: int, num_users: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.encoder = gluon.nn.Dense(num_hidden, activation="sigmoid")
        self.decoder = gluon.nn.Dense(num_users)
        self.dropout = gluon.nn.Dropout(dropout)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Reconstruct rows of ratings.

        Parameters
        ----------
        inputs : mxnet.np.ndarray of float32, shape (batch_size, num_users)
            Ratings, 0 where there is none.

        Returns
        -------
        mxnet.np.ndarray of float32, shape (batch_size, num_users)
            Predicted ratings; while training, 0 where `inputs` is.
        """
        outputs = self.reconstruct(inputs)
        if autograd.is_training():
            return outputs * np.sign(inputs)
        return outputs

    def reconstruct(self, inputs: np.ndarray) -> np.ndarray:
        """Reconstruct rows without the mask, in the same shape."""
        return self.decoder(self.encode(inputs))

    def encode(self, inputs: np.ndarray) -> np.ndarray:
        """Compute the last hidden layer, of shape (batch_size, num_hidden)."""
        return self.dropout(self.encoder(inputs))
