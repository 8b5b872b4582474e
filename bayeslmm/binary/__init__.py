"""Cases and controls: logistic and mixed scans, the liability model."""
