"""The servers that Forward is measured beside."""
