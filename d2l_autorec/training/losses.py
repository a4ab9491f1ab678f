"""The masked RMSE as a loss; the squared error of book and paper is Gluon's `L2Loss`.

References
----------
O. Kuchaiev, B. Ginsburg, "Training Deep AutoEncoders for Collaborative Filtering",
2017, arXiv:1708.01715, which masks the squared error.
"""

from .._mxnet import gluon, mx


class MaskedRMSELoss(gluon.loss.Loss):
    """Root of the mean squared error over a batch's, or a device's, observed cells.

    Its gradient is as long as at an error of 1, however small the errors are.
    """

    def __init__(self) -> None:
        super().__init__(weight=None, batch_axis=0)

    def forward(
        self, predictions: mx.np.ndarray, ratings: mx.np.ndarray
    ) -> mx.np.ndarray:
        """Compute the RMSE, (1,), times the number of cells: losses add up."""
        size = len(ratings)
        mean = mx.np.mean(mx.np.square(predictions - ratings), keepdims=True)
        # At an error of 0 the root has no derivative.
        return mx.np.sqrt(mean + 1e-12) * size
