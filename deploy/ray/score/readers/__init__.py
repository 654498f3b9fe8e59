"""Readers of the kinds of files: each plans the pieces of a file, and yields a piece's chunks."""
