"""The genome: scans, Bayes factors, backgrounds, fine-mapping."""
