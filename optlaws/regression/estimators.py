"""Scikit-learn estimators from a matrix of columns to losses: plain linear, signed linear, trend and field.

They take what `optlaws.features.feature_table` returns, or any other matrix, and may stand in pipelines, grid searches
and cross-validation. Importing this module loads scikit-learn; nothing else in the package does.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from optlaws.dynamics.model import FloatArray
from optlaws.errors import FitError, InputError, RankDeficiencyWarning
from optlaws.regression.linear import least_norm, prior_centres, prior_scales, root_mean_square, solve_squares
from optlaws.regression.trend_field import Problem, Settings, fit_trend_field, predict_trend_field

FLAT = 1e-12  # a column whose range is below this share of its largest value is constant
MAD_TO_SD = 1.482602218505602  # sd of a normal distribution over its median absolute deviation
FIRST_NOISE = 0.01  # relative noise sd before the first residuals are seen
LEAST_NOISE = 1e-8
SCALE_ROUNDS = 5  # rounds in which the noise sd is estimated again; after them the problem is convex
FEWEST_FIELD_ROWS = 4


class PlainLinear(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ordinary least squares: loss = intercept + x . c, the linear regression that Opt-Laws is described with.

    Columns are centred and scaled before they are solved, so a column's unit does not matter. Coefficients that the
    rows do not determine take the values of least norm in those scaled columns, and a warning names their columns.

    Parameters
    ----------
    fit_intercept : bool, default True
        Add a constant. A constant column among the columns is then that constant and gets the coefficient 0.
    names : sequence of str, optional
        Names of the columns for messages; default: those of a data frame, else "column 0", "column 1", ...

    Attributes
    ----------
    coef_ : ndarray of shape (p,)
        Nats per token and unit of the column.
    intercept_ : float
        Nats per token.
    rank_ : int
        Number of coefficients that the rows determine, the intercept left out.
    undetermined_ : tuple of str
        Columns whose coefficients the rows do not determine.

    Notes
    -----
    Source: Xie et al., Opt-Laws, arXiv 2409.04777, abstract ("linear regression" on features of the schedule); that
    paper's own columns are not public, so the columns are the caller's.

    Examples
    --------
    >>> import numpy as np
    >>> model = PlainLinear().fit(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), np.array([3.0, 2.5, 2.0]))
    >>> model.coef_.round(12).tolist(), round(model.intercept_, 12)
    ([0.0, -0.5], 3.0)
    """

    def __init__(self, *, fit_intercept: bool = True, names: Sequence[str] | None = None) -> None:
        """Keep the parameters as they are; `fit` checks them."""
        self.fit_intercept = fit_intercept
        self.names = names

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit coefficients to columns X (n, p) and losses y (n,), n >= 2.

        Raises
        ------
        FitError
            Fewer than 2 rows.
        InputError
            `names` are not one a column.
        ValueError
            X or y holds NaN or infinity, or their lengths differ (scikit-learn's check, as in the other estimators).

        Warns
        -----
        RankDeficiencyWarning
            The rows do not determine every coefficient.
        """
        columns, loss = _checked(self, X, y, fewest=2)
        names = _names(self, columns.shape[1])
        flat = _flat(columns)
        centre = columns.mean(axis=0) if self.fit_intercept else np.zeros(columns.shape[1])
        moved = columns - centre
        used = ~flat if self.fit_intercept else (columns != 0).any(axis=0)
        scale = np.where(used, root_mean_square(moved), 1.0)
        target = loss - loss.mean() if self.fit_intercept else loss
        scaled, self.rank_, loose = least_norm(moved[:, used] / scale[used], target)
        self.coef_ = np.zeros(columns.shape[1])
        self.coef_[used] = scaled / scale[used]
        self.intercept_ = float(loss.mean() - centre @ self.coef_) if self.fit_intercept else 0.0
        undetermined = ~used
        if self.fit_intercept:
            undetermined[_intercept_column(columns, flat)] = False
        undetermined[np.flatnonzero(used)[loose]] = True
        self.undetermined_ = _warn_rank(undetermined, names, len(columns), "they get the coefficients of least norm")
        return self

    def predict(self, X: npt.ArrayLike) -> FloatArray:
        """Return losses of columns X (n, p), shape (n,); scikit-learn's `ValueError` for another p, or before `fit`."""
        columns = _seen(self, X)
        return np.asarray(columns @ self.coef_ + self.intercept_)


class SignedLinear(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Linear law with coefficients of at least 0, priors, and outliers that lose weight.

    With e_i = 1 - (b + x_i . c) / y_i the relative residuals, s their noise sd and m the mean loss, minimises

        sum_i 2 k^2 (sqrt(1 + (e_i / (k s))^2) - 1) + sum_j ((c_j / m - centre_j) / prior_j)^2,    c >= 0,  k = robust

    by reweighted non-negative least squares; s is the scaled median of |e_i|, settled in the first rounds.

    Parameters
    ----------
    prior : float or array-like of shape (p,), optional
        Scale of the prior on each coefficient, as a multiple of the mean loss, above 0; inf = free.
        Default: all free. `Basis.prior` is such an array.
    centre : float or array-like of shape (p,), default 0
        Centre of the prior on each coefficient, as a multiple of the mean loss. `Basis.centre` is such an array.
    robust : float or None, default 3.0
        k: residuals beyond this many noise sds lose weight, above 0; None: plain squares.
    positive : bool, default True
        Coefficients are at least 0; False: any sign, the priors normal.
    fit_intercept : bool, default True
        Add a free constant b, unless a column is constant.
    max_iter : int, default 100
        Most rounds of reweighting.
    tol : float, default 1e-10
        Rounds end when no prediction moves by more than this, as a share of the loss.
    names : sequence of str, optional
        As in `PlainLinear`.

    Attributes
    ----------
    coef_ : ndarray of shape (p,)
    intercept_ : float
    noise_ : float
        s, relative.
    n_iter_ : int
        Rounds taken.
    undetermined_ : tuple of str
        Columns that neither the rows nor the priors determine, signs left out of account.

    Notes
    -----
    Sources: soft L1 as in Triggs et al., Bundle Adjustment - A Modern Synthesis (2000), sec. 3; non-negative least
    squares as in Lawson and Hanson, Solving Least Squares Problems (1974), ch. 23. Losses must be above 0.
    """

    def __init__(
        self,
        *,
        prior: float | npt.ArrayLike | None = None,
        centre: float | npt.ArrayLike = 0.0,
        robust: float | None = 3.0,
        positive: bool = True,
        fit_intercept: bool = True,
        max_iter: int = 100,
        tol: float = 1e-10,
        names: Sequence[str] | None = None,
    ) -> None:
        """Keep the parameters as they are; `fit` checks them."""
        self.prior = prior
        self.centre = centre
        self.robust = robust
        self.positive = positive
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.names = names

    def __sklearn_tags__(self) -> Any:
        """Say that losses must be above 0, and that signs may keep the fit from data that are no losses."""
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.regressor_tags.poor_score = self.positive
        return tags

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit coefficients to columns X (n, p) and losses y (n,) above 0, n >= 2.

        Raises
        ------
        FitError
            Fewer than 2 rows, a loss of 0 or less.
        InputError
            `prior`, `centre`, `robust`, `max_iter` or `tol` out of range, or `names` that are not
            one a column.

        Warns
        -----
        RankDeficiencyWarning
            Neither rows nor priors determine every coefficient.
        """
        columns, loss = _checked(self, X, y, fewest=2)
        _check_positive(loss)
        if self.robust is not None and not _above_zero(self.robust):
            raise InputError(f"robust must be a number above 0 or None, got {self.robust!r}; 3.0 is the default")
        if not _whole(self.max_iter) or self.max_iter < 1:
            raise InputError(
                f"max_iter must be a whole number of at least 1, got {self.max_iter!r}; 100 is the default"
            )
        if not (_above_zero(self.tol) or self.tol == 0):
            raise InputError(f"tol must be a number of at least 0, got {self.tol!r}; 1e-10 is the default")
        n, p = columns.shape
        scales = np.append(prior_scales(self.prior, p), np.inf)
        names = [*_names(self, p), "intercept"]
        x = np.column_stack([columns, np.ones(n)]) / loss[:, None]
        flat = _flat(columns) & (columns != 0).any(axis=0)
        keep = np.append(np.ones(p, dtype=bool), self.fit_intercept and not flat.any())
        size = root_mean_square(x)
        keep &= size > 0
        if not keep.any():
            raise FitError("columns of X must not all be 0, got nothing else; give a constant column or fit_intercept")
        x = x[:, keep] / size[keep]
        strength = 1.0 / (scales[keep] * loss.mean() * size[keep])
        pull = (np.append(prior_centres(self.centre, p), 0.0) / scales)[keep]
        _, _, loose = least_norm(np.vstack([x, FIRST_NOISE * np.diag(strength)]), np.zeros(n + x.shape[1]))
        found = self._reweight(x, strength, pull)
        whole = np.zeros(p + 1)
        whole[keep] = found / size[keep]
        self.coef_, self.intercept_ = whole[:p], float(whole[p])
        undetermined = ~keep
        undetermined[p] = False
        undetermined[np.flatnonzero(keep)[loose]] = True
        self.undetermined_ = _warn_rank(undetermined, names, n, "other coefficients fit as well")
        return self

    def _reweight(self, x: FloatArray, strength: FloatArray, pull: FloatArray) -> FloatArray:
        """Return coefficients of the scaled columns x (n, q) by reweighted least squares; sets noise_ and n_iter_."""
        n = len(x)
        weight, noise, found = np.ones(n), FIRST_NOISE, np.zeros(x.shape[1])
        fitted = np.zeros(n)
        for turn in range(self.max_iter):
            root = np.sqrt(weight) / noise
            rows = np.vstack([x * root[:, None], np.diag(strength)])
            found = solve_squares(rows, np.concatenate([root, pull]), self.positive)
            before, fitted = fitted, x @ found
            residual = 1.0 - fitted
            self.n_iter_ = turn + 1
            if turn < SCALE_ROUNDS:
                free = max(n - int((found != 0).sum()), 1)
                noise = max(MAD_TO_SD * float(np.median(np.abs(residual))) * float(np.sqrt(n / free)), LEAST_NOISE)
            elif np.abs(fitted - before).max() <= self.tol:
                break
            if self.robust is not None:
                weight = 1.0 / np.sqrt(1.0 + (residual / (self.robust * noise)) ** 2)
        self.noise_ = noise
        return found

    def predict(self, X: npt.ArrayLike) -> FloatArray:
        """Return losses of columns X (n, p), shape (n,); scikit-learn's `ValueError` for another p, or before `fit`."""
        columns = _seen(self, X)
        return np.asarray(columns @ self.coef_ + self.intercept_)


class TrendFieldRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Trend of non-negative columns and a Gaussian-process field of its relative residuals, with a sd of every loss.

    The regression behind `optlaws.law.fit_law` on matrices: see `optlaws.regression.trend_field` for the model.

    Parameters
    ----------
    n_columns : int or None, default None
        The first n_columns of X are the trend's columns, at least 0 each; the others are the field's coordinates, in
        length scales. None: all are columns, and the coordinates are the columns standardised over the training rows
        and divided by `length_scale`.
    length_scale : float, default 3.0
        In standard deviations of a column; used where `n_columns` is None.
    prior : float or array-like of shape (n_columns,), optional
        As in `SignedLinear`.
    centre : float or array-like of shape (n_columns,), default 0
        As in `SignedLinear`.
    fit_intercept : bool, default True
        Add a free constant column, unless a column is constant.
    settings : Settings, optional
        Constants of the regression.

    Attributes
    ----------
    coef_ : ndarray of shape (n_columns,)
        At least 0.
    intercept_ : float
    posterior_ : Posterior
    noise_ : float
        Relative sd of one new run about its expected loss.
    spread_ : float
        Factor of the sds of expected losses, calibrated on the groups given to `fit`; 1 without groups.
    evidence_ : float
        Log evidence, up to a constant.
    """

    def __init__(
        self,
        *,
        n_columns: int | None = None,
        length_scale: float = 3.0,
        prior: float | npt.ArrayLike | None = None,
        centre: float | npt.ArrayLike = 0.0,
        fit_intercept: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Keep the parameters as they are; `fit` checks them."""
        self.n_columns = n_columns
        self.length_scale = length_scale
        self.prior = prior
        self.centre = centre
        self.fit_intercept = fit_intercept
        self.settings = settings

    def __sklearn_tags__(self) -> Any:
        """Say that losses must be above 0 and columns at least 0, and that the field is a few percent at most."""
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.input_tags.positive_only = self.n_columns is None
        tags.regressor_tags.poor_score = True
        return tags

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Self:
        """Fit trend and field to X (n, p) and losses y (n,) above 0, n >= 4.

        Parameters
        ----------
        X, y
            Columns, then coordinates if `n_columns` is given; losses in nats per token.
        groups : array-like of shape (n,), optional
            Labels of groups of rows; the errors with one group left out calibrate the sd.

        Raises
        ------
        FitError
            Fewer than 4 rows, a loss of 0 or less, a negative column, no column that is not 0.
        InputError
            A parameter out of range, groups of another length.
        """
        matrix, loss = _checked(self, X, y, fewest=FEWEST_FIELD_ROWS)
        _check_positive(loss)
        n, total = matrix.shape
        if self.n_columns is not None and not (_whole(self.n_columns) and 1 <= self.n_columns < total):
            raise InputError(
                f"n_columns must be at least 1 and below the {total} columns of X, or None, got {self.n_columns!r};"
                " the columns after the first n_columns are the coordinates of the field"
            )
        if not _above_zero(self.length_scale):
            raise InputError(f"length_scale must be a number above 0, got {self.length_scale!r}; 3.0 is the default")
        if not isinstance(self.settings, Settings | None):
            raise InputError(f"settings must be a Settings or None, got {self.settings!r:.60}; None is the default")
        columns = matrix[:, : self.n_columns]
        _check_columns(self, columns)
        flat = _flat(columns) & (columns != 0).any(axis=0)
        self._add_constant = bool(self.fit_intercept and not flat.any())
        if self.n_columns is None:
            spread = np.where(_flat(matrix), 1.0, matrix.std(axis=0))
            self._centre, self._unit = matrix.mean(axis=0), spread * self.length_scale
        x, coordinates = self._split(matrix)
        if not x.any():
            raise FitError("columns of X must not all be 0, got nothing else; give a constant column or fit_intercept")
        parts: list[npt.NDArray[Any]] = []
        if groups is not None:
            labels = np.asarray(groups)
            if labels.shape != (n,):
                raise InputError(f"groups must have shape ({n},), one label a row, got {labels.shape}; give one a row")
            try:
                parts = [np.unique(labels, return_inverse=True)[1].astype(float)]
            except TypeError:
                raise InputError(
                    f"groups must be labels of one kind, all numbers or all text, got {labels.tolist()!r:.60};"
                    " give every row such a label"
                ) from None
        zeros, ones = np.zeros(n), np.ones(n)
        prior = np.append(prior_scales(self.prior, columns.shape[1]), np.inf)[: x.shape[1]]
        settings = replace(self.settings) if self.settings is not None else Settings()
        self.posterior_, about = fit_trend_field(
            Problem(x, loss, coordinates, zeros, zeros, ones),
            prior,
            settings,
            centre=np.append(prior_centres(self.centre, columns.shape[1]), 0.0)[: x.shape[1]],
            groups=parts,
            names=["groups"] * len(parts),
        )
        self.coef_ = self.posterior_.coefficients[: columns.shape[1]]
        self.intercept_ = float(self.posterior_.coefficients[-1]) if self._add_constant else 0.0
        self.noise_, self.spread_, self.evidence_ = self.posterior_.noise, self.posterior_.spread, about["evidence"]
        return self

    def _split(self, matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return columns and coordinates of X."""
        columns = matrix[:, : self.n_columns]
        if self._add_constant:
            columns = np.column_stack([columns, np.ones(len(matrix))])
        if self.n_columns is None:
            return columns, (matrix - self._centre) / self._unit
        return columns, matrix[:, self.n_columns :]

    def predict(self, X: npt.ArrayLike, return_std: bool = False) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Return losses of X (n, p), shape (n,); with return_std also the sd of one new run at each, noise included.

        Nats per token both. scikit-learn's `ValueError` for another p, or before `fit`.
        """
        matrix = _seen(self, X)
        columns, coordinates = self._split(matrix)
        point, _ = predict_trend_field(self.posterior_, columns, coordinates, np.zeros(len(matrix)))
        if return_std:
            return point.loss, point.loss * np.sqrt(point.sd**2 + point.noise**2)
        return point.loss


def _checked(estimator: Any, X: npt.ArrayLike, y: npt.ArrayLike, fewest: int) -> tuple[FloatArray, FloatArray]:
    """Return X and y as finite float64 arrays with at least `fewest` rows; notes the features in the estimator."""
    columns, loss = validate_data(estimator, X, y, dtype=np.float64, y_numeric=True)
    if len(columns) < fewest:
        raise FitError(
            f"{type(estimator).__name__} must be given at least {fewest} rows, got {len(columns)}"
            f" (n_samples = {len(columns)}); add runs"
        )
    return columns, np.asarray(loss, dtype=np.float64)


def _above_zero(value: Any) -> bool:
    """Return whether a parameter is a number above 0 (inf is one, NaN and True are none)."""
    return isinstance(value, Real) and not isinstance(value, bool) and float(value) > 0


def _whole(value: Any) -> bool:
    """Return whether a parameter is a whole number (True is none)."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _seen(estimator: Any, X: npt.ArrayLike) -> FloatArray:
    """Return X as a finite float64 array with the columns that the estimator was fitted to."""
    check_is_fitted(estimator)
    return np.asarray(validate_data(estimator, X, dtype=np.float64, reset=False))


def _check_positive(loss: FloatArray) -> None:
    """Refuse losses of 0 or less."""
    low = np.flatnonzero(loss <= 0)
    if len(low):
        raise FitError(
            f"losses must be above 0, got {loss[low[0]]:.6g} in row {low[0]}; drop that row or shift the scale"
        )


def _check_columns(estimator: Any, columns: FloatArray) -> None:
    """Refuse negative columns of a trend."""
    row, column = divmod(int(columns.argmin()), columns.shape[1])
    if columns[row, column] < 0:
        name = type(estimator).__name__
        raise FitError(
            f"Negative values in data passed to {name}: columns of the trend must be at least 0, got"
            f" {columns[row, column]:.6g} in row {row} of column {column}; shift or negate it, or make it a coordinate"
        )


def _names(estimator: Any, count: int) -> list[str]:
    """Return the names of the columns: given, of the data frame, or by number."""
    given = estimator.names if estimator.names is not None else getattr(estimator, "feature_names_in_", None)
    names = [f"column {j}" for j in range(count)] if given is None else [str(name) for name in given]
    if len(names) != count:
        raise InputError(f"names must be {count}, one a column of X, got {len(names)}; give one a column or None")
    return names


def _flat(columns: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which columns have one value only, shape (p,)."""
    return np.asarray(np.ptp(columns, axis=0) <= FLAT * np.abs(columns).max(axis=0))


def _intercept_column(columns: FloatArray, flat: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the index of the first constant column that is not 0, or no index."""
    return np.flatnonzero(flat & (columns != 0).any(axis=0))[:1]


def _warn_rank(undetermined: npt.NDArray[np.bool_], names: Sequence[str], rows: int, what: str) -> tuple[str, ...]:
    """Warn of the columns that are not determined; returns their names."""
    loose = tuple(name for name, flag in zip(names, undetermined, strict=False) if flag)
    if loose:
        warnings.warn(
            RankDeficiencyWarning(
                f"{len(loose)} of {len(names)} coefficients are not determined by the {rows} rows ({', '.join(loose)}):"
                f" {what}; drop these columns or add runs that vary them"
            ),
            stacklevel=3,
        )
    return loose
