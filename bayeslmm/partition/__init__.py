"""Several variance components: likelihood, posterior, enrichment."""
