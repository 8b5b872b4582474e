"""Writes calls.bed/.bim/.fam and doses.vcf/.psam: what plink2 exports to every format (README)."""

from pathlib import Path

import numpy as np

import bayeslmm as bl

N, PER_CHROMOSOME = 61, 22
CHROMOSOMES = ["1", "2", "7", "11", "17", "X"]  # 19 of the mice becomes X


def cohort():
    """Dosages (n, m) of 61 mice at 132 SNPs, NaN missing; tables."""
    mice = bl.datasets.mouse_hs1940()
    genotypes = mice.genotypes
    variants, dosage = genotypes.variants, genotypes.to_array()[:N]
    eaf = np.nanmean(dosage, axis=0) / 2
    usable = (variants.pos > 0) & (variants.ea != variants.oa) & (eaf > 0.1) & (eaf < 0.9)
    keep = []
    for chrom in CHROMOSOMES:
        here = np.flatnonzero(usable & (variants.chrom == chrom.replace("X", "19")))
        keep += here[:: len(here) // PER_CHROMOSOME][:PER_CHROMOSOME].tolist()
    table = variants.iloc[keep].reset_index(drop=True)
    table["chrom"] = table.chrom.replace("19", "X")
    dosage = dosage[:, keep]
    row, column = np.indices(dosage.shape)
    dosage[(7919 * row + 104729 * column) % (15 + column % 100) == 0] = np.nan
    samples = genotypes.samples.iloc[:N]
    male = (samples.sex == "1").to_numpy()
    on_x = (table.chrom == "X").to_numpy()
    dosage[np.ix_(male, on_x)] = np.where(
        dosage[np.ix_(male, on_x)] == 1, np.nan, dosage[np.ix_(male, on_x)]
    )
    return dosage, samples, table


def write_bed(prefix, dosage, samples, table):
    codes = np.array([0b11, 0b10, 0b00, 0b01], dtype=np.uint8)
    packed = codes[np.where(np.isnan(dosage), 3, dosage).astype(int).T]
    packed = np.pad(packed, ((0, 0), (0, -len(dosage) % 4))).reshape(len(table), -1, 4)
    body = (packed << np.array([0, 2, 4, 6], np.uint8)).sum(2, np.uint8).tobytes()
    Path(f"{prefix}.bed").write_bytes(b"\x6c\x1b\x01" + body)
    bim = table[["chrom", "id", "cm", "pos", "ea", "oa"]]
    bim.to_csv(f"{prefix}.bim", sep="\t", header=False, index=False)
    fam = samples[["fid", "iid"]].assign(father="0", mother="0", sex=samples.sex, phenotype=-9)
    fam.to_csv(f"{prefix}.fam", sep="\t", header=False, index=False)


def write_vcf(prefix, dosage, samples, table):
    """Dosages with three decimals by a rule, for every second SNP outside X, and calls."""
    row, column = np.indices(dosage.shape)
    off = ((104729 * row + 7919 * column) % 901 - 450) / 1000
    doses = np.round(np.clip(dosage + off, 0, 2), 3)
    male = (samples.sex == "1").to_numpy()
    lines = ["##fileformat=VCFv4.3"]
    lines += [f"##contig=<ID={chrom}>" for chrom in CHROMOSOMES]
    lines += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
    lines += ['##FORMAT=<ID=DS,Number=A,Type=Float,Description="Dosage of ALT">']
    names = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    lines += ["\t".join([*names, *samples.iid])]
    for j, snp in enumerate(table.itertuples()):
        fields = [snp.chrom, str(snp.pos), snp.id, snp.oa, snp.ea, ".", ".", "."]
        imputed = j % 2 == 1 and snp.chrom != "X"
        fields.append("GT:DS" if imputed else "GT")
        for i in range(len(samples)):
            x = dosage[i, j]
            if np.isnan(x):
                call = "." if snp.chrom == "X" and male[i] else "./."
            elif snp.chrom == "X" and male[i]:
                call = str(int(x) // 2)
            else:
                call = ["0/0", "0/1", "1/1"][int(x)]
            if imputed:
                call += ":." if np.isnan(x) else f":{doses[i, j]:g}"
            fields.append(call)
        lines.append("\t".join(fields))
    Path(f"{prefix}.vcf").write_text("\n".join(lines) + "\n")
    sexes = "".join(f"{s.iid}\t{s.sex}\n" for s in samples.itertuples())
    Path(f"{prefix}.psam").write_text("#IID\tSEX\n" + sexes)


if __name__ == "__main__":
    parts = cohort()
    write_bed("calls", *parts)
    write_vcf("doses_in", *parts)
