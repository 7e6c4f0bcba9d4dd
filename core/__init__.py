"""Shared helpers that every package may import; they import no other package."""
