"""What golden tests allow: each limit with its reason and the largest difference seen.

A limit is not loosened to make a test pass (CONTRIBUTING.md).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    limit: float
    seen: float
    reason: str

    def check(self, difference) -> None:
        largest = float(np.max(np.abs(np.asarray(difference, dtype=np.float64))))
        assert largest <= self.limit, (
            f"difference {largest:.3g} > {self.limit:g} ({self.reason}; {self.seen:g} seen before)"
        )


_GEMMA_LOG = "GEMMA prints 6 significant digits: half a unit of the last is up to 5e-6 relative"
_GEMMA_STOP = "GEMMA stops its search for the ratio at 1e-5 of it; 1e-4 is the issue's limit"
_FLOAT32 = "products in float32; 2e-3 is the issue's limit"

GOLDEN = {
    # relative, against GEMMA's logs
    "gemma h2, s2_g, s2_e": Tolerance(5e-6, 3.6e-6, _GEMMA_LOG),
    "gemma se of h2": Tolerance(5e-6, 1.6e-6, _GEMMA_LOG),
    "gemma loglik": Tolerance(5e-6, 2.9e-6, _GEMMA_LOG),
    "gemma b and se": Tolerance(5e-6, 2.4e-6, _GEMMA_LOG),
    "gemma bivariate G, R": Tolerance(5e-6, 2.3e-6, _GEMMA_LOG),
    "gemma bivariate se": Tolerance(2e-5, 9.7e-6, "relative; 6 printed digits; 1e-4 asked for"),
    "gemma bivariate b": Tolerance(1e-8, 3.4e-9, "absolute; 6 printed digits of 0.007"),
    # log10 p, against GEMMA's tables
    "gemma p_wald": Tolerance(1e-4, 3.1e-5, _GEMMA_STOP),
    "gemma p_lrt": Tolerance(1e-4, 6.0e-5, _GEMMA_STOP + "; p near 1 is a root of its rounding"),
    "gemma p_score": Tolerance(
        2e-6, 6.6e-7, "7 printed digits: 2.2e-7; GEMMA's null ratio, to 1e-5, moves log10 p by 1e-6"
    ),
    "gemma p_wald float32": Tolerance(2e-3, 3.6e-5, _FLOAT32),
    "gemma p_lrt float32": Tolerance(2e-3, 5.9e-5, _FLOAT32),
    "gemma p_score float32": Tolerance(2e-3, 2.6e-5, _FLOAT32),
    # against GEMMA's tables
    "gemma beta over se": Tolerance(1e-5, 7.4e-6, _GEMMA_STOP),
    "gemma se": Tolerance(1e-5, 1.7e-6, "relative; " + _GEMMA_STOP),
    "gemma l_remle": Tolerance(1e-5, 8.5e-6, "relative; GEMMA stops its search at 1e-5"),
    "gemma beta over se float32": Tolerance(1e-4, 1.4e-5, "products in float32: 1e-7 sqrt(n)"),
    "gemma se float32": Tolerance(1e-5, 2.1e-6, "relative; as float64, float32 adds 1e-6"),
    "gemma l_remle float32": Tolerance(2e-5, 1.04e-5, "relative; as float64, float32 adds 2e-6"),
    "gemma af": Tolerance(5.1e-4, 5.0e-4, "GEMMA prints 3 decimals"),
    # against JAMMA's tables (leave one chromosome out), default float32
    "jamma p": Tolerance(1e-3, 2.7e-5, "1e-3 asked for; products in float32"),
    "jamma l_remle": Tolerance(2e-5, 5.5e-6, "relative; searched to 1e-5"),
    "jamma p, one call": Tolerance(1e-3, 3.4e-5, "1e-3 asked for; products in float32"),
    "jamma l_remle, one call": Tolerance(1e-4, 1.6e-5, "relative; powers of one inverse, float32"),
    # log10 p, against plink2 --glm; float64 whatever is asked for
    "plink2 p": Tolerance(1e-5, 2.2e-6, "plink2 prints 6 significant digits: 2.2e-6"),
    "plink2 beta and se": Tolerance(5.1e-6, 5.0e-6, "relative; 6 printed digits"),
    # logistic regression, against plink2 --glm: beta in standard errors, se relative, log10 p
    "plink2 log odds": Tolerance(1e-4, 4.1e-5, "plink2 fits in float32; 4 digits asked for"),
    "plink2 log odds se": Tolerance(1e-4, 4.2e-5, "relative; plink2 fits in float32"),
    "plink2 log odds p": Tolerance(1e-3, 7.9e-4, "error of z times z, which goes up to 11"),
    "plink2 firth log odds": Tolerance(
        3e-3, 1.5e-3, "plink2 stops early: the brute-force maximum is ours (test_logistic.py)"
    ),
    "plink2 firth se": Tolerance(1e-3, 4.9e-4, "relative; at plink2's estimate"),
    "plink2 firth p": Tolerance(3e-3, 1.9e-3, "as far as the estimate is off"),
    # logistic regression, against statsmodels: beta in standard errors, se relative, log10 p
    "statsmodels": Tolerance(1e-6, 7.5e-8, "both converge; 12 printed digits"),
    "statsmodels p_wald": Tolerance(
        1e-5, 4.2e-6, "se is of the step before the last, 1e-7 off; times z squared, 130"
    ),
}
