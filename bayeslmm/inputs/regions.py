"""Regions of the genome as users write them."""

from __future__ import annotations

from bayeslmm.errors import InputError


def parse_region(text: str | int) -> tuple[str, int | None, int | None]:
    """Chromosome, first and last base pair of a region; None where it is a whole chromosome.

    Parameters
    ----------
    text : str or int
        ``"17"`` (or 17) or ``"17:30000000-38000000"``: positions from 1, both ends included;
        commas in numbers are allowed.

    Raises
    ------
    InputError
        If the text is of neither form, or the region ends before it begins.

    Examples
    --------
    >>> parse_region("17:30,000,000-38,000,000"), parse_region("X")
    (('17', 30000000, 38000000), ('X', None, None))
    """
    chrom, colon, interval = str(text).strip().rpartition(":")
    if not colon and interval:
        return interval, None, None
    try:
        start, end = (int(part.replace(",", "")) for part in interval.split("-"))
        if not chrom:
            raise ValueError
    except ValueError:
        raise InputError(
            f"Region '{text}' is not of the form chrom or chrom:first-last (base pairs)."
        ) from None
    if start > end:
        raise InputError(f"Region '{text}' ends before it begins; expected {chrom}:{end}-{start}.")
    return chrom, start, end
