"""Judges: published image encoders whose weights the user provides (docs/judges.md)."""

CSD, DINO, DINOV2, INCEPTION, SSCD = "csd", "dino", "dinov2", "inception", "sscd"
