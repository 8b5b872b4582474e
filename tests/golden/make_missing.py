"""Hide genotypes of the mice by a rule; write the PLINK files that the goldens are made from.

Run in a folder with mouse_hs1940.bed, .bim and .fam (`datasets.write_mouse_hs1940`).
"""

from pathlib import Path

import numpy as np


def hidden(n: int = 1940, m: int = 12226) -> np.ndarray:
    """Which genotypes are hidden, shape (m, n); rows and columns as in the .bim and .fam."""
    j, i = np.ogrid[:m, :n]
    return (7919 * i + 104729 * j) % (15 + j % 100) == 0


def main() -> None:
    bim, fam = (
        [line.split("\t") for line in Path(f"mouse_hs1940{end}").read_text().splitlines()]
        for end in (".bim", ".fam")
    )
    n, m = len(fam), len(bim)
    packed = np.fromfile("mouse_hs1940.bed", np.uint8)[3:].reshape(m, -1)
    codes = np.stack([(packed >> s) & 3 for s in (0, 2, 4, 6)], -1).reshape(m, -1)[:, :n]
    codes[hidden(n, m)] = 1  # 01 is missing in a .bed

    def write(prefix: str, variants: list[int], samples: list[list[str]]) -> None:
        g = codes[variants, : len(samples)]
        g = np.pad(g, ((0, 0), (0, -g.shape[1] % 4))).reshape(len(variants), -1, 4)
        bed = (g << np.array([0, 2, 4, 6], np.uint8)).sum(axis=-1).astype(np.uint8)
        Path(f"{prefix}.bed").write_bytes(b"\x6c\x1b\x01" + bed.tobytes())
        rows = {".bim": [bim[k] for k in variants], ".fam": samples}
        for end, table in rows.items():
            Path(f"{prefix}{end}").write_text("".join("\t".join(row) + "\n" for row in table))

    write("mouse15to19_missing", [k for k in range(m) if int(bim[k][0]) >= 15], fam)
    placed = [k for k in range(m) if int(bim[k][3]) > 0][:2000]
    write("plink2_grm60", placed, [[*row[:2], "0", "0", row[4], "-9"] for row in fam[:60]])


if __name__ == "__main__":
    main()
