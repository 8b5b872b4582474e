"""Logistic regressions of twelve SNPs of the mice by statsmodels (0.15.0): odds of a high CD8.

Run in an environment with statsmodels beside bayeslmm's dependencies, in this folder. Phenotype
and covariates are those of plink2_cd8_high.glm.logistic.hybrid.tsv.gz (README.md).
"""

import numpy as np
import pandas as pd
import statsmodels.api as sm

import bayeslmm as bl

IDS = ["rs3683945", "rs6269442", "rs6298456", "rs3712953", "rs13476955", "rs3023442",
       "rs3665150", "rs6249614", "rs3727162", "rs3707673", "rs6256504", "rs3713198"]  # fmt: skip


def main() -> None:
    mice = bl.datasets.mouse_hs1940()
    table = mice.phenotypes.join(pd.read_csv("covariates.tsv", sep="\t", index_col=0))
    table = table[table.cd8.notna()]
    y = (table.cd8 > 0).astype(float)
    C = sm.add_constant(table[["sex01", "age"]])
    there = [i for i in IDS if i in set(mice.genotypes.variants.id)]
    chosen = mice.genotypes.select(samples=table.index, variants=there)
    rows = []
    for id, x in zip(chosen.variants.id, chosen.to_array().T, strict=True):
        fit = sm.Logit(y, C.assign(x=x)).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
        null = sm.Logit(y, C).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
        score = sm.GLM(y, C, family=sm.families.Binomial()).fit().score_test(exog_extra=x[:, None])
        rows.append(
            {
                "id": id,
                "beta": fit.params["x"],
                "se": fit.bse["x"],
                "p_wald": fit.pvalues["x"],
                "p_score": float(np.squeeze(score[1])),
                "loglik_null": null.llf,
            }
        )
    path = "statsmodels_cd8_high.tsv"
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, float_format="%.12g")


if __name__ == "__main__":
    main()
