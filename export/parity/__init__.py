"""Parity: every runtime of a bundle is compared with exact arithmetic."""
